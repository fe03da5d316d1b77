package peer;

import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;

import org.eclipse.leshan.core.node.TimestampedLwM2mNodes;
import org.eclipse.leshan.core.observation.CompositeObservation;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.core.observation.SingleObservation;
import org.eclipse.leshan.core.request.SendRequest;
import org.eclipse.leshan.core.response.ObserveCompositeResponse;
import org.eclipse.leshan.core.response.ObserveResponse;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.observation.ObservationListener;
import org.eclipse.leshan.server.queue.PresenceListener;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.registration.RegistrationListener;
import org.eclipse.leshan.server.registration.RegistrationUpdate;
import org.eclipse.leshan.server.send.SendListener;

/** Whatever a server's listeners hear becomes an event line. */
final class ServerEvents implements RegistrationListener, PresenceListener, ObservationListener, SendListener {

	private ServerEvents() {
	}

	static void of(LeshanServer server) {
		ServerEvents e = new ServerEvents();
		server.getRegistrationService().addListener(e);
		server.getPresenceService().addListener(e);
		server.getObservationService().addListener(e);
		server.getSendService().addListener(e);
	}

	/** What the server holds of a device. */
	static Map<String, Object> client(Registration r) {
		Map<String, Object> m = new LinkedHashMap<>();
		m.put("ep", r.getEndpoint());
		m.put("registration", r.getId());
		m.put("address", r.getAddress().getHostAddress() + ":" + r.getPort());
		m.put("identity", r.getClientTransportData().getIdentity().toString());
		m.put("version", r.getLwM2mVersion().toString());
		m.put("lifetime", r.getLifeTimeInSec());
		m.put("queue", r.usesQueueMode());
		return m;
	}

	private static void tell(String kind, Registration r, Map<String, Object> more) {
		Map<String, Object> m = new LinkedHashMap<>();
		if (r != null)
			m.put("ep", r.getEndpoint());
		m.putAll(more);
		Lines.event(kind, m);
	}

	@Override
	public void registered(Registration r, Registration previous, Collection<Observation> o) {
		Lines.event("registered", client(r));
	}

	@Override
	public void updated(RegistrationUpdate u, Registration r, Registration previous) {
		Lines.event("updated", client(r));
	}

	@Override
	public void unregistered(Registration r, Collection<Observation> o, boolean expired, Registration successor) {
		tell("deregistered", r, Map.of("expired", expired, "replaced", successor != null));
	}

	@Override
	public void onAwake(Registration r) {
		tell("awake", r, Map.of());
	}

	@Override
	public void onSleeping(Registration r) {
		tell("sleeping", r, Map.of());
	}

	@Override
	public void newObservation(Observation o, Registration r) {
		tell("observing", r, Map.of("observation", o.toString()));
	}

	@Override
	public void cancelled(Observation o) {
		tell("cancelled", null, Map.of("observation", o.toString()));
	}

	@Override
	public void onResponse(SingleObservation o, Registration r, ObserveResponse x) {
		String path = o.getPath().toString();
		tell("notification", r, Map.of("path", path, "values", Values.of(path, x.getContent())));
	}

	@Override
	public void onResponse(CompositeObservation o, Registration r, ObserveCompositeResponse x) {
		tell("composite-notification", r, Map.of("values", Values.of(x.getContent())));
	}

	@Override
	public void onError(Observation o, Registration r, Exception x) {
		tell("notification-error", r, Map.of("error", x.toString()));
	}

	@Override
	public void dataReceived(Registration r, TimestampedLwM2mNodes data, SendRequest q) {
		tell("send", r, Map.of("values", Values.of(data.getNodesAt(data.getTimestamps().iterator().next()))));
	}

	@Override
	public void onError(Registration r, String message, Exception x) {
		tell("send-error", r, Map.of("error", message + ": " + x));
	}
}
