package peer;

import java.util.Map;
import java.util.TreeMap;

import org.eclipse.leshan.core.node.LwM2mNode;
import org.eclipse.leshan.core.node.LwM2mObject;
import org.eclipse.leshan.core.node.LwM2mObjectInstance;
import org.eclipse.leshan.core.node.LwM2mPath;
import org.eclipse.leshan.core.node.LwM2mResource;
import org.eclipse.leshan.core.node.LwM2mResourceInstance;
import org.eclipse.leshan.core.util.Hex;

/** What Leshan read, as path and text. */
final class Values {

	private Values() {
	}

	static Map<String, String> of(String path, LwM2mNode node) {
		Map<String, String> values = new TreeMap<>();
		add(values, path.equals("/") ? "" : path, node);
		return values;
	}

	static Map<String, String> of(Map<LwM2mPath, LwM2mNode> nodes) {
		Map<String, String> values = new TreeMap<>();
		nodes.forEach((path, node) -> add(values, path.toString(), node));
		return values;
	}

	private static void add(Map<String, String> to, String path, LwM2mNode node) {
		if (node instanceof LwM2mObject)
			((LwM2mObject) node).getInstances().forEach((id, n) -> add(to, path + "/" + id, n));
		else if (node instanceof LwM2mObjectInstance)
			((LwM2mObjectInstance) node).getResources().forEach((id, n) -> add(to, path + "/" + id, n));
		else if (node instanceof LwM2mResource && ((LwM2mResource) node).isMultiInstances())
			((LwM2mResource) node).getInstances().forEach((id, n) -> add(to, path + "/" + id, n));
		else if (node instanceof LwM2mResource)
			to.put(path, text(((LwM2mResource) node).getValue()));
		else if (node instanceof LwM2mResourceInstance)
			to.put(path, text(((LwM2mResourceInstance) node).getValue()));
		else if (node != null)
			to.put(path, node.toString());
	}

	private static String text(Object value) {
		return value instanceof byte[] ? Hex.encodeHexString((byte[]) value) : String.valueOf(value);
	}
}
