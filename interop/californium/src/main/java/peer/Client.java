package peer;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import org.eclipse.californium.core.CoapClient;
import org.eclipse.californium.core.CoapHandler;
import org.eclipse.californium.core.CoapObserveRelation;
import org.eclipse.californium.core.CoapResponse;
import org.eclipse.californium.core.coap.CoAP.Code;
import org.eclipse.californium.core.coap.OptionSet;
import org.eclipse.californium.core.coap.Request;
import org.eclipse.californium.core.network.CoapEndpoint;
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

	private Client(CfPeer peer) {
		this.peer = peer;
		this.base = peer.opt("uri", "coap://127.0.0.1:5683");
	}

	static void run(CfPeer peer) throws Exception {
		Client c = new Client(peer);
		c.db.addContext(c.base, peer.context(true)); // found by the URI's host and port
		CoapEndpoint endpoint = CfPeer.endpoint(0, c.db, peer.configuration());
		endpoint.start();
		c.client.setEndpoint(endpoint);
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
		endpoint.destroy();
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
			show("ANSWER", client.advanced(request));
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

	private void observe(Request request, int notes) throws Exception {
		request.setObserve();
		BlockingQueue<Object> arrived = new LinkedBlockingQueue<>();
		CoapObserveRelation relation = client.observe(request, new CoapHandler() {
			@Override
			public void onLoad(CoapResponse r) {
				arrived.add(r);
			}

			@Override
			public void onError() {
				arrived.add("timeout or reset");
			}
		});
		for (int i = 0; i <= notes; i++) {
			Object r = arrived.poll(peer.number("timeout", 20000), TimeUnit.MILLISECONDS);
			if (!(r instanceof CoapResponse)) {
				System.out.println("ERROR " + (r == null ? "no notification in time" : r));
				break;
			}
			show(i == 0 ? "ANSWER" : "NOTE", (CoapResponse) r);
			if (!((CoapResponse) r).getOptions().hasObserve())
				return; // not observable, or ended by the server
		}
		relation.proactiveCancel();
	}

	private static void show(String kind, CoapResponse r) {
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
