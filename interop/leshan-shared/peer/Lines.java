package peer;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

/**
 * How a program is driven: one JSON object a line, commands on standard input, answers and events on standard output.
 *
 * <pre>
 * {"id":7,"op":"read","ep":"meter","path":"/3/0/0"}      command
 * {"id":7,"code":205,"values":{"/3/0/0":"peer"}}         its answer
 * {"event":"updated","ep":"meter"}                       an event, at any time
 * </pre>
 *
 * Commands run beside each other. The end of standard input ends the program.
 */
final class Lines {

	interface Handler {
		/** Writes what there is to say into the answer. */
		void handle(String op, JsonNode command, Map<String, Object> answer) throws Exception;
	}

	private static final ObjectMapper json = new ObjectMapper();
	private static final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);

	private Lines() {
	}

	static void serve(Handler handler) throws Exception {
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
		event("ready", Map.of());
		for (String line; (line = in.readLine()) != null;) {
			JsonNode command = json.readTree(line);
			new Thread(() -> answer(handler, command), "command " + command.path("id")).start();
		}
		System.exit(0);
	}

	private static void answer(Handler handler, JsonNode command) {
		Map<String, Object> answer = new LinkedHashMap<>();
		answer.put("id", command.path("id").asLong());
		try {
			handler.handle(command.path("op").asText(), command, answer);
		} catch (Exception e) {
			answer.put("error", e.toString());
		}
		print(answer);
	}

	static void event(String kind, Map<String, Object> more) {
		Map<String, Object> event = new LinkedHashMap<>();
		event.put("event", kind);
		event.putAll(more);
		print(event);
	}

	private static void print(Map<String, Object> line) {
		try {
			String text = json.writeValueAsString(line);
			synchronized (out) {
				out.println(text);
				out.flush();
			}
		} catch (Exception e) {
			e.printStackTrace();
		}
	}
}
