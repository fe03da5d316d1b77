package peer;

import java.util.Arrays;

import org.eclipse.leshan.core.oscore.OscoreSetting;
import org.eclipse.leshan.core.util.Hex;

/**
 * An LwM2M server and a client on Leshan 2.0.0-M15 as published:
 *
 * <pre>
 * server --port=N [--no-oscore] [--oscore:EP=CONTEXT]... [--b2] [--awake-ms=N]
 * client --uri=coap://HOST:PORT --ep=EP [--oscore=CONTEXT] [--b2] [--lifetime=SECONDS]
 * CONTEXT: secret,salt,sender id,recipient id[,aead,hkdf] in hexadecimal, identifiers as seen from the side that gets it
 * </pre>
 */
public final class Leshan15 {

	public static void main(String[] words) throws Exception {
		Options o = new Options(Arrays.copyOfRange(words, Math.min(1, words.length), words.length));
		switch (words.length == 0 ? "" : words[0]) {
		case "server":
			Server15.run(o);
			break;
		case "client":
			Client15.run(o);
			break;
		default:
			System.err.println("server|client --key=value ...");
			System.exit(2);
		}
	}

	static OscoreSetting oscore(String context) throws Exception {
		String[] p = context.split(",", -1);
		Integer aead = p.length > 4 ? Integer.valueOf(p[4]) : null, hkdf = p.length > 5 ? Integer.valueOf(p[5]) : null;
		return new OscoreSetting(hex(p[2]), hex(p[3]), hex(p[0]), aead, hkdf, hex(p[1]));
	}

	private static byte[] hex(String s) {
		return Hex.decodeHex(s.toCharArray());
	}
}
