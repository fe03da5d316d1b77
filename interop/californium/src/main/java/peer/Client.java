package peer;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import org.eclipse.californium.core.CoapClient;
import org.eclipse.californium.core.CoapResponse;
import org.eclipse.californium.core.coap.CoAP.Code;
import org.eclipse.californium.core.coap.OptionSet;
import org.eclipse.californium.core.coap.Request;
import org.eclipse.californium.core.coap.Response;
import org.eclipse.californium.core.network.CoapEndpoint;
import org.eclipse.californium.core.observe.NotificationListener;
import org.eclipse.californium.elements.util.Bytes;
import org.eclipse.californium.elements.util.StringUtil;
import org.eclipse.californium.oscore.HashMapCtxDB;
import org.eclipse.californium.oscore.OSCoreCtx;

/**
 * Sends what standard input asks for and prints what comes back: the line protocol of ../aiocoap/words.py. After each
 * command a line CONTEXT tells where the security context stands.
 */
final class Client {

	private final CfPeer peer;
	private final String base;
	private final HashMapCtxDB db = new HashMapCtxDB();
	private final CoapClient client = new CoapClient();
	private final CoapEndpoint endpoint;

	private Client(CfPeer peer) throws Exception {
		this.peer = peer;
		this.base = peer.opt("uri", "coap://127.0.0.1:5683");
		this.db.addContext(base, peer.context(true)); // found by the URI's host and port
		this.endpoint = CfPeer.endpoint(0, db, peer.configuration());
	}

	static void run(CfPeer peer) throws Exception {
		Client c = new Client(peer);
		c.endpoint.start();
		c.client.setEndpoint(c.endpoint);
		c.client.setTimeout((long) peer.number("timeout", 20000));
		System.out.println("READY");
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
		for (String line; (line = in.readLine()) != null;) {
			try {
				c.command(line);
			} catch (Exception e) {
				System.out.println("ERROR " + e);
			}
			OSCoreCtx x = c.db.getContext(c.base);
			System.out.println("CONTEXT next=" + x.getSenderSeq() + " idctx=" + x.getContextIdString() + " phase="
					+ x.getContextRederivationPhase());
			System.out.println("END");
		}
		c.endpoint.destroy();
		System.exit(0);
	}

	private void command(String line) throws Exception {
		String[] parts = line.trim().split(" +");
		Map<String, String> words = new HashMap<>();
		for (int i = 1; i < parts.length; i++) {
			String[] w = parts[i].split("=", 2);
			words.put(w[0], w[1]);
		}
		Request request = request(Code.valueOf(parts[0]), words);
		if (words.containsKey("observe"))
			observe(request, Integer.parseInt(words.get("observe")));
		else
			show("ANSWER", send(request));
	}

	private Request request(Code code, Map<String, String> words) {
		Request r = new Request(code);
		r.setURI(base + words.get("path") + (words.containsKey("query") ? "?" + words.get("query") : ""));
		OptionSet o = r.getOptions();
		if (!words.containsKey("plain"))
			o.setOscore(Bytes.EMPTY);
		if (words.containsKey("accept"))
			o.setAccept(Integer.parseInt(words.get("accept")));
		if (words.containsKey("format"))
			o.setContentFormat(Integer.parseInt(words.get("format")));
		if (words.containsKey("if-match"))
			o.addIfMatch(CfPeer.hex(words.get("if-match")));
		if (words.containsKey("if-none-match"))
			o.setIfNoneMatch(true);
		if (words.containsKey("payload"))
			r.setPayload(CfPeer.hex(words.get("payload")));
		return r;
	}

	/**
	 * Takes the notifications from the endpoint, as CoapClient.observe drops them: it orders by the value of the inner
	 * Observe option, which RFC 8613 section 4.1.3.5.2 wants empty.
	 */
	private void observe(Request request, int notes) throws Exception {
		request.setObserve();
		BlockingQueue<Response> arrived = new LinkedBlockingQueue<>();
		NotificationListener listener = (q, r) -> {
			if (q.getToken().equals(request.getToken()))
				arrived.add(r);
		};
		endpoint.addNotificationListener(listener);
		Response first = send(request);
		show("ANSWER", first);
		boolean going = first != null && first.getOptions().hasObserve();
		for (int i = 0; going && i < notes; i++) {
			Response r = arrived.poll(peer.number("timeout", 20000), TimeUnit.MILLISECONDS);
			if (r == null) {
				System.out.println("ERROR no notification in time");
				break;
			}
			show("NOTE", r);
			going = r.getOptions().hasObserve();
		}
		endpoint.removeNotificationListener(listener);
		if (going) {
			// RFC 8613 section 4.1.3.5: the cancellation repeats the registration's token and options
			Request cancel = Request.newGet();
			cancel.setURI(request.getURI());
			cancel.setOptions(request.getOptions());
			cancel.getOptions().setOscore(Bytes.EMPTY);
			cancel.setObserveCancel();
			cancel.setToken(request.getToken());
			show("CANCELLED", send(cancel));
			endpoint.cancelObservation(request.getToken());
		}
	}

	/** Null after a timeout or a reset. */
	private Response send(Request request) throws Exception {
		CoapResponse r = client.advanced(request);
		return r == null ? null : r.advanced();
	}

	private static void show(String kind, Response r) {
		if (r == null) {
			System.out.println("ERROR timeout or reset");
			return;
		}
		OptionSet o = r.getOptions();
		StringBuilder b = new StringBuilder(kind);
		b.append(" code=").append(r.getCode().toString()).append(" sealed=").append(o.hasOscore());
		if (o.hasContentFormat())
			b.append(" format=").append(o.getContentFormat());
		if (o.getETagCount() > 0)
			b.append(" etag=").append(StringUtil.byteArray2Hex(o.getETags().get(0).getValue()).toLowerCase());
		if (o.hasMaxAge())
			b.append(" max-age=").append(o.getMaxAge());
		if (o.hasObserve())
			b.append(" observe=").append(o.getObserve());
		b.append(" payload=").append(r.getPayload().length == 0 ? "" : StringUtil.byteArray2Hex(r.getPayload()).toLowerCase());
		System.out.println(b);
	}
}
