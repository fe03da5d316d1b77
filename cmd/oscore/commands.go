package main

import "github.com/plgd-dev/go-coap/v3/message/codes"

// The table is filled in init, not in its declaration, because a command may
// itself refer to the table (help), which would be an initialisation cycle.
func init() {
	commands = []command{
		{"lab", "show sealed traffic through a hostile relay", runLab},
		{"keys", "make, import, export, show and check keys", runKeys},
		{"get", "read a resource, sealed", requestCommand(codes.GET)},
		{"put", "write a resource, sealed", requestCommand(codes.PUT)},
		{"post", "send a POST, sealed", requestCommand(codes.POST)},
		{"delete", "delete a resource, sealed", requestCommand(codes.DELETE)},
		{"fetch", "send a FETCH, sealed", requestCommand(codes.FETCH)},
		{"observe", "follow a resource, sealed", observe},
		{"serve", "run a sealed demonstration server", serve},
		{"agent", "stay connected and send requests from JSON lines", agent},
		{"sim", "run a small LwM2M device or server, in plain or sealed", runSim},
		{"edhoc", "shake hands with a peer that shares no secret (EDHOC, RFC 9528)", runEDHOC},
		{"decode", "explain captured messages and decrypt them", decode},
		{"mallory", "stand between a client and a server and attack by a script", runMallory},
		{"diagnose", "find the field that is wrong in a key", diagnose},
		{"fragment", "sign firmware, cut it, serve it, fetch it verified block by block", runFragment},
	}
}
