package peer;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

import org.eclipse.leshan.core.model.ResourceModel.Type;
import org.eclipse.leshan.core.node.LwM2mObjectInstance;
import org.eclipse.leshan.core.node.LwM2mPath;
import org.eclipse.leshan.core.node.LwM2mSingleResource;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.CreateRequest;
import org.eclipse.leshan.core.request.DeleteRequest;
import org.eclipse.leshan.core.request.DiscoverRequest;
import org.eclipse.leshan.core.request.ExecuteRequest;
import org.eclipse.leshan.core.request.ObserveCompositeRequest;
import org.eclipse.leshan.core.request.ObserveRequest;
import org.eclipse.leshan.core.request.ReadCompositeRequest;
import org.eclipse.leshan.core.request.ReadRequest;
import org.eclipse.leshan.core.request.WriteRequest;
import org.eclipse.leshan.core.response.DiscoverResponse;
import org.eclipse.leshan.core.response.LwM2mResponse;
import org.eclipse.leshan.core.response.ObserveCompositeResponse;
import org.eclipse.leshan.core.response.ReadCompositeResponse;
import org.eclipse.leshan.core.response.ReadResponse;
import org.eclipse.leshan.core.util.Hex;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.registration.Registration;

import com.fasterxml.jackson.databind.JsonNode;

/** The commands that a server takes. Only what every version of Leshan has is used here. */
final class ServerCommands implements Lines.Handler {

	private final LeshanServer server;

	ServerCommands(LeshanServer server) {
		this.server = server;
	}

	@Override
	public void handle(String op, JsonNode c, Map<String, Object> answer) throws Exception {
		if (op.equals("clients")) {
			List<Map<String, Object>> all = new ArrayList<>();
			for (Iterator<Registration> i = server.getRegistrationService().getAllRegistrations(); i.hasNext();)
				all.add(ServerEvents.client(i.next()));
			answer.put("clients", all);
			return;
		}
		Registration r = server.getRegistrationService().getByEndpoint(c.path("ep").asText());
		if (r == null)
			throw new IllegalArgumentException("not registered: " + c.path("ep").asText());
		String path = c.path("path").asText();
		List<String> paths = new ArrayList<>();
		c.path("paths").forEach(p -> paths.add(p.asText()));
		// Without a format Leshan takes the one that it prefers.
		ContentFormat format = c.has("format") ? ContentFormat.fromName(c.path("format").asText()) : null;
		ContentFormat composite = format == null ? ContentFormat.SENML_CBOR : format;
		String value = c.path("value").asText();
		long patience = c.path("timeout").asLong(5000);
		switch (op) {
		case "read":
			show(answer, path, server.send(r, new ReadRequest(format, path), patience));
			break;
		case "observe":
			show(answer, path, server.send(r, new ObserveRequest(format, path), patience));
			break;
		case "read-composite":
			show(answer, path, server.send(r, new ReadCompositeRequest(composite, composite, paths), patience));
			break;
		case "observe-composite":
			show(answer, path, server.send(r, new ObserveCompositeRequest(composite, composite, paths.toArray(new String[0])), patience));
			break;
		case "discover":
			show(answer, path, server.send(r, new DiscoverRequest(path), patience));
			break;
		case "execute":
			show(answer, path, server.send(r, new ExecuteRequest(path, value.isEmpty() ? null : value), patience));
			break;
		case "delete":
			show(answer, path, server.send(r, new DeleteRequest(path), patience));
			break;
		case "create": // an instance of the object with one resource that is a text
			LwM2mPath at = new LwM2mPath(path);
			show(answer, path, server.send(r, new CreateRequest(format, at.getObjectId(),
					new LwM2mObjectInstance(at.getObjectInstanceId(),
							List.of(LwM2mSingleResource.newResource(at.getResourceId(), value, Type.STRING)))), patience));
			break;
		case "write": {
			LwM2mPath p = new LwM2mPath(path);
			int object = p.getObjectId(), instance = p.getObjectInstanceId(), resource = p.getResourceId();
			WriteRequest q = c.has("opaque")
					? new WriteRequest(object, instance, resource, Hex.decodeHex(c.path("opaque").asText().toCharArray()))
					: new WriteRequest(format == null ? ContentFormat.TEXT : format, object, instance, resource, value);
			show(answer, path, server.send(r, q, patience));
			break;
		}
		case "cancel":
			answer.put("cancelled", server.getObservationService().cancelObservations(r, path));
			break;
		case "cancel-composite":
			answer.put("cancelled", server.getObservationService().cancelCompositeObservations(r, paths.toArray(new String[0])));
			break;
		default:
			throw new IllegalArgumentException("no command " + op);
		}
	}

	private static void show(Map<String, Object> answer, String path, LwM2mResponse x) {
		if (x == null) {
			answer.put("error", "timeout");
			return;
		}
		answer.put("code", x.getCode().getCode());
		if (x.getErrorMessage() != null)
			answer.put("message", x.getErrorMessage());
		if (!x.isSuccess())
			return;
		if (x instanceof ReadResponse) // ObserveResponse is one
			answer.put("values", Values.of(path, ((ReadResponse) x).getContent()));
		else if (x instanceof ReadCompositeResponse) // ObserveCompositeResponse is one
			answer.put("values", Values.of(((ReadCompositeResponse) x).getContent()));
		else if (x instanceof DiscoverResponse) {
			List<String> links = new ArrayList<>();
			for (Object link : ((DiscoverResponse) x).getObjectLinks())
				links.add(link.toString());
			answer.put("links", links);
		}
	}
}
