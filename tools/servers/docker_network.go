//go:build integration

package servers

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Network is a docker network of one test. It is internal: its containers
// reach each other and this machine at Gateway, and nothing else. (They have a
// default route all the same: the engine drops what would leave.)
type Network struct {
	ID string
	// Gateway is this machine's address in the network.
	Gateway string
}

// NewNetwork makes a network that is removed when the test ends. Make it
// before the containers in it: what was made last is removed first.
func NewNetwork(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{ID: docker(tb, dockerTimeout, nil, "network", "create", "--internal", "--label", dockerLabel+"="+dockerRun, dockerName())}
	dockerCleanup(tb, "network", "rm", n.ID)
	n.Gateway = docker(tb, dockerTimeout, nil, "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", n.ID)
	return n
}

// Relay makes a server that listens on this machine's loopback ("http://
// 127.0.0.1:8200") reachable from the network's containers, and gives the URL
// to use there. Bytes pass as they are, so a TLS certificate has to be checked
// against the server's own name.
func (n *Network) Relay(tb testing.TB, server string) string {
	tb.Helper()
	u, err := url.Parse(server)
	if err != nil {
		tb.Fatal(err)
	}
	target := u.Host
	listener, err := net.Listen("tcp", net.JoinHostPort(n.Gateway, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	var relays sync.WaitGroup
	done := make(chan struct{})
	tb.Cleanup(func() {
		close(done)
		_ = listener.Close()
		relays.Wait()
	})
	relays.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			relays.Go(func() { relay(conn, target, done) })
		}
	})
	u.Host = listener.Addr().String()
	return u.String()
}

// relay carries one connection until both sides have ended it, or done.
func relay(client net.Conn, target string, done <-chan struct{}) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	ended := make(chan struct{}, 2)
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		// The other direction may still have something to say.
		_ = to.(*net.TCPConn).CloseWrite()
		ended <- struct{}{}
	}
	go carry(server, client)
	go carry(client, server)
	for range 2 {
		select {
		case <-ended:
		case <-done:
			return
		}
	}
}
