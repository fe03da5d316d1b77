package peer;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;

import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.californium.core.network.CoapEndpoint;
import org.eclipse.californium.cose.AlgorithmID;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.oscore.CoapOSException;
import org.eclipse.californium.oscore.ContextRederivation.PHASE;
import org.eclipse.californium.oscore.OSCoreCtx;
import org.eclipse.leshan.client.LeshanClient;
import org.eclipse.leshan.client.LeshanClientBuilder;
import org.eclipse.leshan.client.californium.endpoint.CaliforniumClientEndpointFactory;
import org.eclipse.leshan.client.californium.endpoint.CaliforniumClientEndpointsProvider;
import org.eclipse.leshan.client.californium.endpoint.coap.CoapOscoreClientEndpointFactory;
import org.eclipse.leshan.client.californium.endpoint.coap.CoapOscoreProtocolProvider;
import org.eclipse.leshan.client.engine.DefaultRegistrationEngineFactory;
import org.eclipse.leshan.client.object.Oscore;
import org.eclipse.leshan.client.object.Security;
import org.eclipse.leshan.client.object.Server;
import org.eclipse.leshan.client.observer.LwM2mClientObserverAdapter;
import org.eclipse.leshan.client.resource.ObjectsInitializer;
import org.eclipse.leshan.client.send.ManualDataSender;
import org.eclipse.leshan.client.servers.LwM2mServer;
import org.eclipse.leshan.client.servers.ServerInfo;
import org.eclipse.leshan.core.LwM2mId;
import org.eclipse.leshan.core.ResponseCode;
import org.eclipse.leshan.core.californium.oscore.cf.InMemoryOscoreContextDB;
import org.eclipse.leshan.core.californium.oscore.cf.OscoreParameters;
import org.eclipse.leshan.core.californium.oscore.cf.OscoreStore;
import org.eclipse.leshan.core.californium.oscore.cf.StaticOscoreStore;
import org.eclipse.leshan.core.model.LwM2mModelRepository;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.oscore.OscoreSetting;
import org.eclipse.leshan.core.request.BindingMode;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.DeregisterRequest;
import org.eclipse.leshan.core.request.RegisterRequest;
import org.eclipse.leshan.core.request.UpdateRequest;
import org.eclipse.leshan.core.response.SendResponse;

import com.fasterxml.jackson.databind.JsonNode;
import com.upokecenter.cbor.CBORObject;

final class Client15 {

	private Client15() {
	}

	static void run(Options o) throws Exception {
		String uri = o.get("uri", "coap://127.0.0.1:5683");
		List<ObjectModel> models = ObjectLoader.loadAllDefault();
		models.removeIf(m -> m.id == 3 && m.version.equals("1.2")); // M4 knows 1.1 and shows octets of what is newer
		ObjectsInitializer objects = new ObjectsInitializer(new LwM2mModelRepository(models).getLwM2mModel());
		if (o.has("oscore")) {
			int instance = 0;
			objects.setInstancesForObject(LwM2mId.OSCORE, new Oscore(instance, Leshan15.oscore(o.get("oscore", ""))));
			objects.setInstancesForObject(LwM2mId.SECURITY, Security.oscoreOnly(uri, 123, instance));
		} else {
			objects.setInstancesForObject(LwM2mId.SECURITY, Security.noSec(uri, 123));
		}
		objects.setInstancesForObject(LwM2mId.SERVER,
				new Server(123, o.number("lifetime", 300), EnumSet.of(BindingMode.U), false, BindingMode.U));
		Device device = new Device();
		objects.setInstancesForObject(LwM2mId.DEVICE, device);
		objects.setInstancesForObject(LwM2mId.FIRMWARE, new Device.Firmware());

		DefaultRegistrationEngineFactory engine = new DefaultRegistrationEngineFactory();
		engine.setRequestTimeoutInMs(o.number("timeout-ms", 5000));
		engine.setRetryWaitingTimeInMs(o.number("again-ms", 1000));
		CaliforniumClientEndpointsProvider.Builder e = new CaliforniumClientEndpointsProvider.Builder(
				o.has("b2") ? new Rederiving() : new CoapOscoreProtocolProvider());
		Configuration c = e.createDefaultConfiguration();
		c.set(CoapConfig.MAX_RESOURCE_BODY_SIZE, 1 << 20);
		e.setConfiguration(c);
		e.setClientAddress(InetAddress.getByName("127.0.0.1"));
		LeshanClientBuilder b = new LeshanClientBuilder(o.get("ep", "leshan"));
		b.setObjects(objects.createAll());
		b.setEndpointsProviders(e.build());
		b.setDataSenders(new ManualDataSender());
		b.setRegistrationEngineFactory(engine);
		LeshanClient client = b.build();
		client.addObserver(new Events());
		client.start();
		Lines.serve((op, command, answer) -> handle(client, device, op, command, answer));
	}

	private static void handle(LeshanClient client, Device device, String op, JsonNode c, Map<String, Object> answer) throws Exception {
		switch (op) {
		case "battery":
			device.battery(c.path("value").asInt());
			break;
		case "update":
			client.triggerRegistrationUpdate();
			break;
		case "send":
			List<String> paths = new ArrayList<>();
			c.path("paths").forEach(p -> paths.add(p.asText()));
			LwM2mServer to = client.getRegisteredServers().values().iterator().next();
			SendResponse x = client.getSendService().sendData(to, ContentFormat.SENML_CBOR, paths, 10000);
			if (x == null)
				answer.put("error", "timeout");
			else
				answer.put("code", x.getCode().getCode());
			break;
		case "stop":
			client.stop(true);
			break;
		case "nothing": // its reply follows what was told before
			break;
		default:
			throw new IllegalArgumentException("no command " + op);
		}
	}

	private static final class Events extends LwM2mClientObserverAdapter {

		private static void failed(String what, ResponseCode code, String message, Exception x) {
			Lines.event("failed", Map.of("what", what, "error", code + " " + message + " " + x));
		}

		@Override
		public void onRegistrationSuccess(LwM2mServer s, RegisterRequest r, String id) {
			Lines.event("registered", Map.of("registration", id));
		}

		@Override
		public void onRegistrationFailure(LwM2mServer s, RegisterRequest r, ResponseCode c, String m, Exception x) {
			failed("registration", c, m, x);
		}

		@Override
		public void onRegistrationTimeout(LwM2mServer s, RegisterRequest r) {
			failed("registration", null, "timeout", null);
		}

		@Override
		public void onUpdateSuccess(LwM2mServer s, UpdateRequest r) {
			Lines.event("updated", Map.of());
		}

		@Override
		public void onUpdateFailure(LwM2mServer s, UpdateRequest r, ResponseCode c, String m, Exception x) {
			failed("update", c, m, x);
		}

		@Override
		public void onUpdateTimeout(LwM2mServer s, UpdateRequest r) {
			failed("update", null, "timeout", null);
		}

		@Override
		public void onDeregistrationSuccess(LwM2mServer s, DeregisterRequest r) {
			Lines.event("deregistered", Map.of());
		}

		@Override
		public void onUnexpectedError(Throwable t) {
			Lines.event("failed", Map.of("what", "client", "error", t.toString()));
		}
	}

	/** What Leshan's client does from M18 on: it begins with Appendix B.2. */
	private static final class Rederiving extends CoapOscoreProtocolProvider {

		@Override
		public CaliforniumClientEndpointFactory createDefaultEndpointFactory() {
			return new CoapOscoreClientEndpointFactory() {
				@Override
				protected CoapEndpoint.Builder createEndpointBuilder(InetSocketAddress a, ServerInfo i, Configuration c) {
					CoapEndpoint.Builder b = super.createEndpointBuilder(a, i, c);
					if (i.useOscore)
						b.setCustomCoapStackArgument(new FirstRederived(new StaticOscoreStore(parameters(i.oscoreSetting))));
					return b;
				}
			};
		}

		private static OscoreParameters parameters(OscoreSetting o) {
			try {
				return new OscoreParameters(o.getSenderId(), o.getRecipientId(), o.getMasterSecret(),
						AlgorithmID.FromCBOR(CBORObject.FromObject(o.getAeadAlgorithm().getValue())),
						AlgorithmID.FromCBOR(CBORObject.FromObject(o.getHkdfAlgorithm().getValue())),
						o.getMasterSalt().length == 0 ? null : o.getMasterSalt());
			} catch (Exception e) {
				throw new IllegalStateException(e);
			}
		}
	}

	private static final class FirstRederived extends InMemoryOscoreContextDB {

		private boolean begun;

		FirstRederived(OscoreStore store) {
			super(store);
		}

		@Override
		public synchronized OSCoreCtx getContext(byte[] recipientId) {
			OSCoreCtx c = super.getContext(recipientId);
			if (!begun && c != null) {
				begun = true;
				c.setContextRederivationEnabled(true);
				c.setContextRederivationPhase(PHASE.CLIENT_INITIATE);
			}
			return c;
		}

		@Override
		public synchronized OSCoreCtx getContext(byte[] recipientId, byte[] idContext) throws CoapOSException {
			return getContext(recipientId);
		}
	}
}
