//go:build !linux

package bolt

func (st *Store) looked() {}

func (st *Store) trim(int) {}
