//go:build soak

package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process under supervision: the calls by which it makes things durable come
// here first (seccomp_unotify(2)), and are let through, refused or answered by
// kill -9. The daemon is the one that people run, without a hook in it.
//
//	test ── starts itself, which sets the filter, hands the listener over
//	        and becomes the daemon (execve)
//	  ◀── fdatasync(store.db)? ── daemon
//	  ──▶ yes; EIO; ENOSPC; SIGKILL

// wrapEnv makes the test binary the process that becomes its arguments.
const wrapEnv = "SOAK_BECOME"

// call is one that waits for an answer.
type call struct {
	flush bool   // fsync, fdatasync; else it writes or grows a file
	path  string // of the file
}

// verdict is the answer.
type verdict struct {
	errno syscall.Errno // 0: go on
	kill  bool
}

// trapped are the calls, by their numbers.
var trapped = map[int32]bool{unix.SYS_FSYNC: true, unix.SYS_FDATASYNC: true, unix.SYS_PWRITE64: false, unix.SYS_FTRUNCATE: false, unix.SYS_WRITE: false}

func TestMain(m *testing.M) {
	if os.Getenv(wrapEnv) != "" {
		fmt.Fprintln(os.Stderr, become(os.Args[1:]))
		os.Exit(70)
	}
	os.Exit(m.Run())
}

// become sets the filter and is the program from then on.
func become(args []string) error {
	runtime.LockOSThread() // the filter is this thread's, and so is execve
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	numbers := []int{unix.SYS_FSYNC, unix.SYS_FDATASYNC}
	if os.Getenv(wrapEnv) == "writes" {
		numbers = append(numbers, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_WRITE)
	}
	for i, n := range numbers {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jt: uint8(len(numbers) - i)})
	}
	prog = append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	)
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return err
	}
	_ = unix.Close(3)
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, wrapEnv+"=") {
			env = append(env, e)
		}
	}
	return syscall.Exec(args[0], args, env)
}

// supervised is a running process.
type supervised struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	out  tail
}

// supervise starts a program; judge answers its calls, writes among them only if
// they are wanted.
func supervise(dir string, writes bool, judge func(call) verdict, args ...string) (*supervised, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	mode := "flushes"
	if writes {
		mode = "writes"
	}
	p := &supervised{cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.out, &p.out
	p.cmd.Env = append(os.Environ(), wrapEnv+"="+mode)
	p.cmd.ExtraFiles = []*os.File{theirs}
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	listener, err := receive(ours)
	if err != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		return nil, fmt.Errorf("%w: %s", err, p.out.String())
	}
	go p.answer(listener, judge)
	go func() {
		_ = p.cmd.Wait() // killed, mostly
		close(p.done)
	}()
	return p, nil
}

// receive takes the listener over.
func receive(from *os.File) (int, error) {
	c, err := net.FileConn(from)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return -1, err
	}
	all, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(all) == 0 {
		return -1, errors.Join(errors.New("no listener came"), err)
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// answer answers calls until the process has gone.
func (p *supervised) answer(listener int, judge func(call) verdict) {
	defer unix.Close(listener)
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if fds[0].Revents != 0 {
				return // POLLHUP
			}
			continue
		}
		var in [80]byte // struct seccomp_notif
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&in))); errno != 0 {
			if errno == unix.EINTR || errno == unix.ENOENT {
				continue // that thread has gone
			}
			return
		}
		u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(in[at:]) }
		c := call{flush: trapped[int32(u32(16))]}
		c.path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", u32(8), u32(32)))
		v := judge(c)
		if v.kill {
			_ = p.cmd.Process.Kill()
		}
		var out [24]byte // struct seccomp_notif_resp
		copy(out[:8], in[:8])
		if v.errno != 0 {
			binary.NativeEndian.PutUint32(out[16:], uint32(-int32(v.errno)))
		} else {
			binary.NativeEndian.PutUint32(out[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&out))); errno != 0 && errno != unix.ENOENT {
			return
		}
	}
}

// kill is kill -9, and waits.
func (p *supervised) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 1<<15 {
		t.b = append([]byte(nil), t.b[len(t.b)-1<<14:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
