//go:build !no_sops

package sops

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/getsops/sops/v3/pgp"

	"secret-init/sources"
)

// gpgAgent is the daemon that gpg starts to hold the secret keys, and that
// would stay behind as a child of the application.
type gpgAgent struct {
	once sync.Once
	// ours: none ran before the first key was asked for.
	ours bool
}

// expect notes whether an agent runs already: that one is not ours to end.
func (a *gpgAgent) expect(ctx context.Context) {
	a.once.Do(func() { a.ours = !agentAnswers(ctx) })
}

func (a *gpgAgent) stop(ctx context.Context) error {
	a.once.Do(func() {})
	if !a.ours || !agentAnswers(ctx) {
		return nil
	}
	left := sources.Errorf(sources.Invalid, "end it with: gpgconf --kill gpg-agent", "sops: the gpg-agent that was started to decrypt still runs")
	if exec.CommandContext(ctx, "gpgconf", "--kill", "gpg-agent").Run() != nil {
		return left
	}
	// It is told to end, and does so a little later.
	for range 50 {
		if !agentAnswers(ctx) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return left
}

func agentAnswers(ctx context.Context) bool {
	// gpgconf is of the same package as gpg: without the one there is no agent.
	socket, err := exec.CommandContext(ctx, "gpgconf", "--list-dirs", "agent-socket").Output()
	if err != nil {
		return false
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimSpace(string(socket)))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// preparePGP decides between the two implementations that the library has: it
// tries its own first, which asks for the passphrase of a locked key on
// stdout. Such a key is left to gpg and its agent.
func preparePGP(ctx context.Context, key *pgp.MasterKey, agent *gpgAgent) {
	agent.expect(ctx)
	if keyringLocked(filepath.Join(gnupgHome(), "secring.gpg")) {
		pgp.DisableOpenPGP{}.ApplyToMasterKey(key)
	}
}

func keyringLocked(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	entities, err := openpgp.ReadKeyRing(file)
	if err != nil {
		return false
	}
	for _, entity := range entities {
		if entity.PrivateKey != nil && entity.PrivateKey.Encrypted {
			return true
		}
		for _, sub := range entity.Subkeys {
			if sub.PrivateKey != nil && sub.PrivateKey.Encrypted {
				return true
			}
		}
	}
	return false
}

// gnupgHome is where the library looks: it asks passwd before HOME.
func gnupgHome() string {
	if home := os.Getenv("GNUPGHOME"); home != "" {
		return home
	}
	if me, err := user.Current(); err == nil {
		return filepath.Join(me.HomeDir, ".gnupg")
	}
	return filepath.Join(os.Getenv("HOME"), ".gnupg")
}
