package peer;

import java.net.InetSocketAddress;

import org.eclipse.leshan.core.endpoint.Protocol;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.model.VersionedModelProvider;
import org.eclipse.leshan.server.queue.StaticClientAwakeTimeProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coap.CoapServerProtocolProvider;

/** An LwM2M server on Leshan 2.0.0-M18 as published, plain CoAP: {@code --port=N [--awake-ms=N]}. */
public final class Leshan18 {

	public static void main(String[] words) throws Exception {
		Options o = new Options(words);
		CaliforniumServerEndpointsProvider.Builder e = new CaliforniumServerEndpointsProvider.Builder(
				new CoapServerProtocolProvider());
		e.setConfiguration(e.createDefaultConfiguration());
		e.addEndpoint(new InetSocketAddress(o.get("host", "127.0.0.1"), o.number("port", 5683)), Protocol.COAP);
		LeshanServerBuilder b = new LeshanServerBuilder();
		b.setObjectModelProvider(new VersionedModelProvider(ObjectLoader.loadAllDefault()));
		b.setClientAwakeTimeProvider(new StaticClientAwakeTimeProvider(o.number("awake-ms", 93000)));
		b.setEndpointsProviders(e.build());
		LeshanServer s = b.build();
		ServerEvents.of(s);
		s.start();
		Lines.serve(new ServerCommands(s));
	}
}
