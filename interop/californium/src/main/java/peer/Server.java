package peer;

import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.WeakHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

import org.eclipse.californium.core.CoapResource;
import org.eclipse.californium.core.CoapServer;
import org.eclipse.californium.core.coap.CoAP.ResponseCode;
import org.eclipse.californium.core.coap.CoAP.Type;
import org.eclipse.californium.core.coap.MediaTypeRegistry;
import org.eclipse.californium.core.coap.Response;
import org.eclipse.californium.core.network.Exchange;
import org.eclipse.californium.core.server.resources.CoapExchange;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.oscore.HashMapCtxDB;

/** Serves the resources of the OSCORE interop specification and /oscore/large. */
final class Server {

	private static final String HELLO = "Hello World!";
	private static final long NOTIFY_MS = 200;
	private static final long NOTIFY_LARGE_MS = 2000;
	private static final ScheduledExecutorService TIMER = Executors.newSingleThreadScheduledExecutor(r -> {
		Thread t = new Thread(r);
		t.setDaemon(true);
		return t;
	});

	/**
	 * A resource that says who reached it and refuses what is not sealed. Not an OSCoreResource: that one takes the
	 * OSCORE option off the stored request, so that every notification becomes 4.01.
	 */
	static class Logged extends CoapResource {
		boolean sealedOnly = true;
		Consumer<CoapExchange> get, put, post, delete;

		Logged(String name) {
			super(name);
		}

		@Override
		public void handleRequest(Exchange x) {
			boolean sealed = x.getCryptographicContextID() != null;
			if (sealedOnly && !sealed) {
				x.sendResponse(new Response(ResponseCode.UNAUTHORIZED));
				return;
			}
			System.out.println("HANDLED " + x.getRequest().getCode() + " " + getURI() + " sealed=" + sealed);
			super.handleRequest(x);
		}

		@Override
		public void handleGET(CoapExchange e) {
			run(get, e);
		}

		@Override
		public void handlePUT(CoapExchange e) {
			run(put, e);
		}

		@Override
		public void handlePOST(CoapExchange e) {
			run(post, e);
		}

		@Override
		public void handleDELETE(CoapExchange e) {
			run(delete, e);
		}

		private static void run(Consumer<CoapExchange> handler, CoapExchange e) {
			if (handler == null)
				e.respond(ResponseCode.METHOD_NOT_ALLOWED);
			else
				handler.accept(e);
		}
	}

	/** one, then two, then (if so made) an error that ends the observation. */
	static final class Observed extends Logged {
		private final boolean ends;
		private final Map<Exchange, Integer> steps = Collections.synchronizedMap(new WeakHashMap<>());

		Observed(String name, boolean ends, Type type) {
			super(name);
			this.ends = ends;
			setObservable(true);
			setObserveType(type);
			getAttributes().setObservable();
		}

		@Override
		public void handleGET(CoapExchange e) {
			int step = steps.merge(e.advanced(), 1, Integer::sum);
			if (step < (ends ? 3 : 2))
				TIMER.schedule((Runnable) this::changed, NOTIFY_MS, TimeUnit.MILLISECONDS);
			switch (step) {
			case 1:
				e.respond(ResponseCode.CONTENT, "one", MediaTypeRegistry.TEXT_PLAIN);
				break;
			case 2:
				e.respond(ResponseCode.CONTENT, "two", MediaTypeRegistry.TEXT_PLAIN);
				break;
			default:
				e.respond(ResponseCode.INTERNAL_SERVER_ERROR, "Terminate Observe", MediaTypeRegistry.TEXT_PLAIN);
			}
		}
	}

	/** 3000 bytes, then 3999 others, once the first were surely fetched. */
	static final class ObservedLarge extends Logged {
		private final byte[] all;
		private volatile boolean second;

		ObservedLarge(byte[] all, Type type) {
			super("observe-large");
			this.all = all;
			setObservable(true);
			setObserveType(type);
			getAttributes().setObservable();
		}

		@Override
		public void handleGET(CoapExchange e) {
			if (!second)
				TIMER.schedule(() -> {
					second = true;
					changed();
				}, NOTIFY_LARGE_MS, TimeUnit.MILLISECONDS);
			e.respond(ResponseCode.CONTENT, second ? Arrays.copyOfRange(all, 1, 4000) : Arrays.copyOf(all, 3000),
					MediaTypeRegistry.APPLICATION_OCTET_STREAM);
		}
	}

	private static Logged hello(String name) {
		Logged r = new Logged(name);
		r.get = e -> e.respond(ResponseCode.CONTENT, HELLO, MediaTypeRegistry.TEXT_PLAIN);
		return r;
	}

	private static Logged open(String name) {
		Logged r = hello(name);
		r.sealedOnly = false;
		return r;
	}

	private static Logged hello2() {
		Logged r = new Logged("2");
		r.get = e -> {
			if (!"1".equals(e.getQueryParameter("first"))) {
				e.respond(ResponseCode.BAD_REQUEST, "query first=1 expected");
				return;
			}
			e.setETag(new byte[] { 0x2b });
			e.respond(ResponseCode.CONTENT, HELLO, MediaTypeRegistry.TEXT_PLAIN);
		};
		return r;
	}

	private static Logged hello3() {
		Logged r = new Logged("3");
		r.get = e -> {
			if (e.getRequestOptions().getAccept() != MediaTypeRegistry.TEXT_PLAIN) {
				e.respond(ResponseCode.BAD_REQUEST, "Accept 0 expected");
				return;
			}
			e.setMaxAge(5);
			e.respond(ResponseCode.CONTENT, HELLO, MediaTypeRegistry.TEXT_PLAIN);
		};
		return r;
	}

	private static Logged hello6() {
		Logged r = new Logged("6");
		r.post = e -> e.respond(ResponseCode.CHANGED, e.getRequestPayload(), MediaTypeRegistry.TEXT_PLAIN);
		return r;
	}

	private static Logged hello7() {
		Logged r = new Logged("7");
		r.put = e -> {
			if (e.getRequestOptions().hasIfNoneMatch())
				e.respond(ResponseCode.PRECONDITION_FAILED);
			else if (e.getRequestOptions().getIfMatchCount() == 1
					&& Arrays.equals(e.getRequestOptions().getIfMatch().get(0).getValue(), new byte[] { 0x7b }))
				e.respond(ResponseCode.CHANGED);
			else
				e.respond(ResponseCode.BAD_REQUEST, "If-Match 7b expected");
		};
		return r;
	}

	private static Logged test() {
		Logged r = new Logged("test");
		r.delete = e -> e.respond(ResponseCode.DELETED);
		return r;
	}

	private static byte[] bytes() {
		byte[] b = new byte[20480];
		for (int i = 0; i < b.length; i++)
			b[i] = (byte) (i * 7 % 256);
		return b;
	}

	private static Logged large() {
		byte[][] body = { bytes() };
		Logged r = new Logged("large");
		r.get = e -> e.respond(ResponseCode.CONTENT, body[0], MediaTypeRegistry.APPLICATION_OCTET_STREAM);
		r.put = e -> {
			body[0] = e.getRequestPayload();
			e.respond(ResponseCode.CHANGED);
		};
		r.post = e -> e.respond(ResponseCode.CHANGED, e.getRequestPayload(), MediaTypeRegistry.APPLICATION_OCTET_STREAM);
		return r;
	}

	static void run(CfPeer peer) throws Exception {
		HashMapCtxDB db = new HashMapCtxDB();
		db.addContext(peer.context(false)); // found by (kid, kid context)
		Configuration c = peer.configuration();
		CoapServer server = new CoapServer(c);
		server.addEndpoint(CfPeer.endpoint(peer.number("port", 5683), db, c));
		Type type = Type.valueOf(peer.opt("notify-type", "CON"));
		CoapResource hello = new CoapResource("hello", false);
		hello.add(open("coap"), hello("1"), hello2(), hello3(), hello6(), hello7());
		CoapResource oscore = new CoapResource("oscore", false);
		oscore.add(hello, new Observed("observe1", true, type), new Observed("observe2", false, type), test(), large(),
				new ObservedLarge(bytes(), type));
		server.add(oscore);
		server.start();
		System.out.println("READY");
		Thread.currentThread().join();
	}

	private Server() {
	}
}
