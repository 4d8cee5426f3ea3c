package sources

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
)

// Unreachable says why no answer came from the server at u. It goes by types:
// a library's text may hold the address with its password.
func Unreachable(ctx context.Context, u *url.URL, err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "cannot be reached: the name " + dns.Name + " does not resolve"
	}
	reason := "the connection failed"
	errno, isErrno := errors.AsType[syscall.Errno](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil || isNet && timeout.Timeout():
		reason = "no answer in time"
	case isErrno:
		reason = errno.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		reason = "the server closed the connection"
	}
	if u == nil || u.Host == "" {
		return "cannot be reached: " + reason
	}
	return "cannot be reached at " + u.Host + ": " + reason
}

// NoServer reports whether no server can be at u, whatever time passes. An
// unspecified address is where a server listens; Linux connects from it to
// the machine itself, so that it is worth one attempt.
func NoServer(u *url.URL, err error) bool {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return true
	}
	if u == nil {
		return false
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return true
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return true
	}
	address, err := netip.ParseAddr(u.Hostname())
	return err == nil && (address.IsUnspecified() || address.IsMulticast())
}

// BadCertificate says what is wrong with a server's certificate; it is empty
// where err is of another kind.
func BadCertificate(err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return CertificateName
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return CertificateAuthority
	}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
		return CertificateTime
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return CertificateOther
	}
	return ""
}

// What BadCertificate says.
const (
	CertificateName      = "the server's certificate is for another name"
	CertificateAuthority = "the server's certificate is signed by an authority that is not known here"
	CertificateTime      = "the server's certificate has expired or is not valid yet"
	CertificateOther     = "the server's certificate is not valid"
)

// HintClock is for what a wrong clock may explain.
const HintClock = "check this machine's clock with: date -u"
