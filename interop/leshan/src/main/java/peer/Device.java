package peer;

import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.eclipse.leshan.client.resource.BaseInstanceEnabler;
import org.eclipse.leshan.client.servers.LwM2mServer;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.model.ResourceModel.Type;
import org.eclipse.leshan.core.node.LwM2mResource;
import org.eclipse.leshan.core.request.argument.Arguments;
import org.eclipse.leshan.core.response.ExecuteResponse;
import org.eclipse.leshan.core.response.ReadResponse;
import org.eclipse.leshan.core.response.WriteResponse;

/** Objects of the client. Leshan wants them public, with a constructor that takes nothing, and refuses to start without the mandatory resources. */
public class Device extends BaseInstanceEnabler {

	private String offset = "+00";
	private int battery = 50;
	private int executed;

	/** Sets the battery level and tells who observes it. */
	synchronized void battery(int level) {
		battery = level;
		fireResourceChange(9);
	}

	@Override
	public synchronized ReadResponse read(LwM2mServer server, int id) {
		switch (id) {
		case 0:
			return ReadResponse.success(id, "peer");
		case 1:
			return ReadResponse.success(id, "Leshan client");
		case 9:
			return ReadResponse.success(id, battery);
		case 11:
			return ReadResponse.success(id, Map.of(0, 0L), Type.INTEGER);
		case 13:
			return ReadResponse.success(id, new Date());
		case 14:
			return ReadResponse.success(id, offset);
		case 16:
			return ReadResponse.success(id, "U");
		default:
			return super.read(server, id);
		}
	}

	@Override
	public synchronized WriteResponse write(LwM2mServer server, boolean replace, int id, LwM2mResource value) {
		if (id != 14)
			return super.write(server, replace, id, value);
		offset = (String) value.getValue();
		Lines.event("write", Map.of("path", "/3/0/14", "value", offset));
		return WriteResponse.success();
	}

	@Override
	public synchronized ExecuteResponse execute(LwM2mServer server, int id, Arguments arguments) {
		Lines.event("execute", Map.of("path", "/3/0/" + id, "times", ++executed));
		return ExecuteResponse.success();
	}

	@Override
	public List<Integer> getAvailableResourceIds(ObjectModel m) {
		return List.of(0, 1, 4, 9, 11, 13, 14, 16);
	}

	/** Object 5: takes a firmware image. */
	public static class Firmware extends BaseInstanceEnabler {

		@Override
		public ReadResponse read(LwM2mServer server, int id) {
			return id == 3 || id == 5 || id == 9 ? ReadResponse.success(id, 0) : super.read(server, id);
		}

		@Override
		public WriteResponse write(LwM2mServer server, boolean replace, int id, LwM2mResource value) {
			if (id != 0)
				return super.write(server, replace, id, value);
			Map<String, Object> m = new HashMap<>();
			m.put("path", "/5/0/0");
			m.put("bytes", ((byte[]) value.getValue()).length);
			Lines.event("write", m);
			return WriteResponse.success();
		}

		@Override
		public List<Integer> getAvailableResourceIds(ObjectModel m) {
			return List.of(0, 1, 2, 3, 5, 9);
		}
	}
}
