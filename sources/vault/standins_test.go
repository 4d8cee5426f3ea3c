//go:build integration

package vault_test

import (
	"encoding/asn1"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// tokenReview stands in for the API server of Kubernetes: the one request
// that Vault sends it. It knows one token.
func tokenReview(t *testing.T, known string) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token string `json:"token"`
			} `json:"spec"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		status := map[string]any{"authenticated": false}
		if review.Spec.Token == known {
			status = map[string]any{"authenticated": true, "audiences": []string{"vault"}, "user": map[string]any{"username": "system:serviceaccount:shop:app", "uid": "1"}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// ldapMessage is the envelope of RFC 4511, 4.1.1.
type ldapMessage struct {
	ID int
	Op asn1.RawValue
}

// ldapBind is what a bind request holds (RFC 4511, 4.2).
type ldapBind struct {
	Version  int
	Name     []byte
	Password []byte `asn1:"tag:0"`
}

// ldapServer stands in for a directory: it binds one name with one password.
func ldapServer(t *testing.T, name, password string) (url string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveLDAP(conn, name, password)
		}
	}()
	return "ldap://" + listener.Addr().String()
}

func serveLDAP(conn net.Conn, name, password string) {
	defer conn.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		var message ldapMessage
		if _, err := asn1.Unmarshal(buffer[:n], &message); err != nil || message.Op.Tag != 0 {
			return
		}
		var bind ldapBind
		_, err = asn1.UnmarshalWithParams(message.Op.FullBytes, &bind, "application,tag:0")
		const success, invalidCredentials = 0, 49
		code := invalidCredentials
		if err == nil && string(bind.Name) == name && string(bind.Password) == password {
			code = success
		}
		result, err := asn1.MarshalWithParams(struct {
			Code      asn1.Enumerated
			DN, Error []byte
		}{Code: asn1.Enumerated(code)}, "application,tag:1")
		if err != nil {
			return
		}
		reply, err := asn1.Marshal(ldapMessage{message.ID, asn1.RawValue{FullBytes: result}})
		if err != nil {
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}
