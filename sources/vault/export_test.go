//go:build !no_vault

package vault

// SetServiceAccountToken replaces the path at which Kubernetes puts it.
func SetServiceAccountToken(path string) (restore func()) {
	before := serviceAccountToken
	serviceAccountToken = path
	return func() { serviceAccountToken = before }
}
