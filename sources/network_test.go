package sources

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"
)

func dialError(err error) error {
	return &url.Error{Op: "Get", URL: "http://app:" + canary + "@host:1/", Err: &net.OpError{Op: "dial", Err: err}}
}

func TestUnreachable(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	server := &url.URL{Scheme: "http", Host: "host:1"}
	for _, test := range []struct {
		ctx    context.Context
		server *url.URL
		err    error
		want   string
	}{
		{t.Context(), server, dialError(syscall.ECONNREFUSED), "cannot be reached at host:1: connection refused"},
		{t.Context(), nil, dialError(syscall.ECONNREFUSED), "cannot be reached: connection refused"},
		{t.Context(), server, dialError(io.EOF), "cannot be reached at host:1: the server closed the connection"},
		{t.Context(), server, dialError(errors.New(canary)), "cannot be reached at host:1: the connection failed"},
		{t.Context(), server, dialError(context.DeadlineExceeded), "cannot be reached at host:1: no answer in time"},
		{ended, server, dialError(errors.New(canary)), "cannot be reached at host:1: no answer in time"},
		{t.Context(), server, dialError(&net.DNSError{Name: "host", Err: canary, IsNotFound: true}), "cannot be reached: the name host does not resolve"},
	} {
		if got := Unreachable(test.ctx, test.server, test.err); got != test.want {
			t.Errorf("%v: %q, not %q", test.err, got, test.want)
		}
	}
}

func TestNoServer(t *testing.T) {
	for text, want := range map[string]bool{
		"http://host": false, "https://host:8200": false, "http://127.0.0.1:65535": false, "http://[::1]:1": false,
		"http://[::]:1": true, "http://0.0.0.0:1": true, "http://224.0.0.1:1": true, "http://host:65536": true, "http://host:0": true,
		"localhost:4566": true, "ftp://host": true, "http://": true, "http://:80": true, "/x": true,
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := NoServer(u, dialError(syscall.ECONNREFUSED)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	if !NoServer(nil, dialError(syscall.EAFNOSUPPORT)) || NoServer(nil, dialError(syscall.ENETUNREACH)) {
		t.Error("a family that the machine does not have is worth no second attempt, a network that is down is")
	}
}

func TestBadCertificate(t *testing.T) {
	for want, err := range map[string]error{
		CertificateName:      x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"},
		CertificateAuthority: x509.UnknownAuthorityError{},
		CertificateTime:      x509.CertificateInvalidError{Reason: x509.Expired},
		CertificateOther:     x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign},
	} {
		if got := BadCertificate(fmt.Errorf("x: %w", &tls.CertificateVerificationError{Err: err})); got != want {
			t.Errorf("%T: %q, not %q", err, got, want)
		}
	}
	if got := BadCertificate(dialError(io.EOF)); got != "" {
		t.Errorf("no certificate: %q", got)
	}
}
