package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notifier speaks to the service manager (sd_notify). Without one it is silent.
type notifier struct{ conn net.Conn }

// newNotifier connects to what $NOTIFY_SOCKET names.
func newNotifier(socket string) (*notifier, error) {
	if socket == "" {
		return &notifier{}, nil
	}
	if socket[0] == '@' {
		socket = "\x00" + socket[1:] // an abstract one
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return &notifier{}, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return &notifier{conn}, nil
}

func (n *notifier) say(state string) {
	if n.conn != nil {
		_, _ = n.conn.Write([]byte(state)) // a service manager that is gone is no reason to end
	}
}

// reloading says that the configuration is read anew; the monotonic time lets the
// service manager tell this reload from an earlier one.
func (n *notifier) reloading() {
	n.say(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicros()))
}

func (n *notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}

// watchdogInterval is how often the service manager wants to hear from us, half
// of $WATCHDOG_USEC; 0 if it does not.
func watchdogInterval(getenv func(string) string) (time.Duration, error) {
	v := getenv("WATCHDOG_USEC")
	if v == "" {
		return 0, nil
	}
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil // it is for another process
	}
	usec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || usec <= 0 {
		return 0, errors.New("WATCHDOG_USEC is " + strconv.Quote(v) + ": not a number of microseconds")
	}
	return time.Duration(usec) * time.Microsecond / 2, nil
}
