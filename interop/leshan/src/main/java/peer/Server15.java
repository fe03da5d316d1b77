package peer;

import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Collection;
import java.util.Map;

import org.eclipse.californium.core.network.CoapEndpoint;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.oscore.CoapOSException;
import org.eclipse.californium.oscore.OSCoreCoapStackFactory;
import org.eclipse.californium.oscore.OSCoreCtx;
import org.eclipse.leshan.core.californium.oscore.cf.InMemoryOscoreContextDB;
import org.eclipse.leshan.core.californium.oscore.cf.OscoreStore;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.californium.LwM2mOscoreStore;
import org.eclipse.leshan.server.californium.OscoreContextCleaner;
import org.eclipse.leshan.server.californium.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.server.californium.endpoint.coap.CoapOscoreServerEndpointFactory;
import org.eclipse.leshan.server.californium.endpoint.coap.CoapServerProtocolProvider;
import org.eclipse.leshan.server.model.VersionedModelProvider;
import org.eclipse.leshan.server.observation.LwM2mNotificationReceiver;
import org.eclipse.leshan.server.queue.StaticClientAwakeTimeProvider;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.security.EditableSecurityStore;
import org.eclipse.leshan.server.security.InMemorySecurityStore;
import org.eclipse.leshan.server.security.SecurityInfo;

final class Server15 {

	private Server15() {
	}

	static void run(Options o) throws Exception {
		InMemorySecurityStore security = new InMemorySecurityStore();
		for (Map.Entry<String, String> c : o.named("oscore").entrySet())
			security.add(SecurityInfo.newOscoreInfo(c.getKey(), Leshan15.oscore(c.getValue())));
		CaliforniumServerEndpointsProvider.Builder e = new CaliforniumServerEndpointsProvider.Builder(
				new CoapServerProtocolProvider());
		e.setConfiguration(e.createDefaultConfiguration());
		URI uri = URI.create("coap://" + o.get("host", "127.0.0.1") + ":" + o.number("port", 5683));
		if (o.has("no-oscore"))
			e.addEndpoint(uri);
		else
			e.addEndpoint(o.has("b2") ? new Rederiving(uri) : new CoapOscoreServerEndpointFactory(uri));
		LeshanServerBuilder b = new LeshanServerBuilder();
		b.setObjectModelProvider(new VersionedModelProvider(ObjectLoader.loadAllDefault()));
		b.setSecurityStore(security);
		b.setClientAwakeTimeProvider(new StaticClientAwakeTimeProvider(o.number("awake-ms", 93000)));
		b.setEndpointsProviders(e.build());
		LeshanServer s = b.build();
		ServerEvents.of(s);
		s.start();
		Lines.serve(new ServerCommands(s));
	}

	/** An endpoint that lets clients begin Appendix B.2. M15 itself answers every kid context with RST; M18 does what is done here. */
	private static final class Rederiving extends CoapOscoreServerEndpointFactory {

		Rederiving(URI uri) {
			super(uri);
		}

		@Override
		protected CoapEndpoint.Builder createEndpointBuilder(InetSocketAddress a, Configuration c, LwM2mNotificationReceiver n,
				LeshanServer server) {
			CoapEndpoint.Builder b = super.createEndpointBuilder(a, c, n, server);
			ByIdentifier db = new ByIdentifier(new LwM2mOscoreStore(server.getSecurityStore(), server.getRegistrationStore()));
			b.setCustomCoapStackArgument(db).setCoapStackFactory(new OSCoreCoapStackFactory());
			// M15's cleaner removes the context as well when a registration is replaced by one of the same identity: the
			// context that Appendix B.2 has just made.
			OscoreContextCleaner cleaner = new OscoreContextCleaner(db) {
				@Override
				public void unregistered(Registration r, Collection<Observation> o, boolean expired, Registration successor) {
					if (successor == null || !r.getClientTransportData().getIdentity()
							.equals(successor.getClientTransportData().getIdentity()))
						super.unregistered(r, o, expired, successor);
				}
			};
			server.getRegistrationService().addListener(cleaner);
			((EditableSecurityStore) server.getSecurityStore()).addListener(cleaner);
			return b;
		}
	}

	/** Leaves the kid context out of the look-up. */
	private static final class ByIdentifier extends InMemoryOscoreContextDB {

		ByIdentifier(OscoreStore store) {
			super(store);
		}

		@Override
		public synchronized OSCoreCtx getContext(byte[] recipientId, byte[] idContext) throws CoapOSException {
			return getContext(recipientId);
		}
	}
}
