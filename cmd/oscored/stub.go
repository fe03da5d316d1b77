package main

import (
	"context"
	"net"
	"net/netip"
)

type stubEngine struct{ conn *net.UDPConn }

func newEngine(_ *daemon, _ *route, listen, _ netip.AddrPort) (engine, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen))
	return &stubEngine{c}, err
}

func (s *stubEngine) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }
func (s *stubEngine) Serve(ctx context.Context) error {
	<-ctx.Done()
	return s.conn.Close()
}
func (s *stubEngine) Forget(string)             {}
func (s *stubEngine) Devices(func(device) bool) {}
func (s *stubEngine) Stats() engineStats        { return engineStats{} }
