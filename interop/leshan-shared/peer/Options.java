package peer;

import java.util.HashMap;
import java.util.Map;

/** The command line: words of the form {@code --key} and {@code --key=value}. */
final class Options {

	private final Map<String, String> given = new HashMap<>();

	Options(String[] words) {
		for (String w : words) {
			String[] kv = w.replaceFirst("^--", "").split("=", 2);
			given.put(kv[0], kv.length > 1 ? kv[1] : "");
		}
	}

	boolean has(String key) {
		return given.containsKey(key);
	}

	String get(String key, String otherwise) {
		return given.getOrDefault(key, otherwise);
	}

	int number(String key, int otherwise) {
		return has(key) ? Integer.parseInt(given.get(key)) : otherwise;
	}

	/** The options {@code --prefix:NAME=value}, by NAME. */
	Map<String, String> named(String prefix) {
		Map<String, String> found = new HashMap<>();
		given.forEach((k, v) -> {
			if (k.startsWith(prefix + ":"))
				found.put(k.substring(prefix.length() + 1), v);
		});
		return found;
	}
}
