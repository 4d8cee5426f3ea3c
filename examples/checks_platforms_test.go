//go:build integration

package examples

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// secretInitImage is what make image makes: secret-init alone.
func secretInitImage(tb testing.TB) string {
	return servers.BuildImage(tb, "FROM scratch\nCOPY secret-init /secret-init\nENTRYPOINT [\"/secret-init\"]\n",
		map[string]string{"secret-init": servers.Root() + "/bin/secret-init"})
}

// checkScratch starts the container as the README says it starts, too.
func checkScratch(t *testing.T, r *run) {
	onlyFiles(t, r, "example-scratch")
	if err := os.Chmod(r.folder+"/key.txt", 0o444); err != nil {
		t.Fatal(err)
	}
	out := r.must(t, strings.Replace(r.last(), "docker run", "docker run --user 10001:10001", 1))
	if !strings.Contains(out, "pid 1 runs as uid 10001") || !strings.Contains(out, "owner 10001:10001  on tmpfs") {
		t.Errorf("started as 10001:10001:\n%s", out)
	}
}

// checkNonroot looks for what the README says of the image, and starts the
// container again: the token in docker inspect has to be used up.
func checkNonroot(t *testing.T, r *run) {
	onlyFiles(t, r, "example-nonroot")
	if user := r.must(t, "docker image inspect -f '{{.Config.User}}' example-nonroot"); user != "65532:65532" {
		t.Errorf("the image's user is %q", user)
	}
	out, err := command(t.Context(), r.env, r.last())
	if exitCode(err) != 77 || !strings.Contains(out, "wrapping token") {
		t.Errorf("with the used wrapping token: %v\n%s", err, out)
	}
	password := r.must(t, "docker exec -e VAULT_ADDR=http://127.0.0.1:8200 -e VAULT_TOKEN=throw-away example-nonroot-vault vault kv get -field=password secret/db")
	if len(password) != 24 || strings.Contains(r.output+out, password) {
		t.Errorf("the password is in the output, or is none: it has %d bytes\n%s", len(password), r.output)
	}
}

// onlyFiles fails if there is more in an image than secret-init and the
// program, or if its secret-init is not the one that is tested.
func onlyFiles(t *testing.T, r *run, image string) {
	t.Helper()
	// The engine's own mount points are left out.
	files := strings.Fields(r.must(t, `id=$(docker create `+image+`)
docker export "$id" | tar -t | grep -vE '^(\.dockerenv$|dev/|etc/|proc/|sys/)'
docker rm "$id" >/dev/null`))
	slices.Sort(files)
	if !slices.Equal(files, []string{"app", "secret-init"}) {
		t.Errorf("%s has the files %q", image, files)
	}
	r.must(t, `id=$(docker create `+image+`)
if ! docker cp "$id:/secret-init" - | tar -xO | cmp - bin/secret-init; then echo "the image secret-init is an older one: make image"; false; fi
docker rm "$id"`)
}

// checkKubernetes looks at the stand-in: it has to refuse what the API server
// refuses, and what it cannot take over.
func checkKubernetes(t *testing.T, r *run) {
	manifest, err := os.ReadFile("kubernetes/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, faulty := range []struct{ from, to, says string }{
		{"readOnlyRootFilesystem:", "readOnlyRootFileSystem:", `unknown field "spec.containers[0].securityContext.readOnlyRootFileSystem"`},
		{"runAsUser: 10001", "runAsUser: app", "cannot unmarshal string"},
		{"medium: Memory", "medium: Memory\n        medium: Memory", `key "medium" already set`},
		{"audience: vault", "audience: api", `is for ["vault"]`},
		{"restartPolicy: Never", "restartPolicy: Never\n  hostIPC: true", "HostIPC is nothing that Docker can stand in for"},
	} {
		path := filepath.Join(t.TempDir(), "pod.yaml")
		if err := os.WriteFile(path, bytes.ReplaceAll(manifest, []byte(faulty.from), []byte(faulty.to)), 0o644); err != nil {
			t.Fatal(err)
		}
		script := strings.Replace(r.last(), "$PWD/examples/kubernetes/pod.yaml", path, 1)
		out, err := command(t.Context(), r.env, script)
		if exitCode(err) != 1 || !strings.Contains(out, faulty.says) || strings.Contains(out, "pid 1") {
			t.Errorf("with %q: %v\n%s", faulty.to, err, out)
		}
	}
	password := r.must(t, "docker exec -e VAULT_ADDR=http://127.0.0.1:8200 -e VAULT_TOKEN=throw-away example-kubernetes-vault vault kv get -field=password secret/db")
	if len(password) != 24 || strings.Contains(r.output, password) {
		t.Errorf("the password is in the output, or is none: it has %d bytes\n%s", len(password), r.output)
	}
}

// checkECS holds the definitions against AWS's model: a field or a type that is
// not in it has to be refused, or registering them would prove nothing. The
// policy of the role is held against moto's grammar of policies.
func checkECS(t *testing.T, r *run) {
	for _, faulty := range []struct{ file, from, to, says string }{
		{"ec2.json", "readonlyRootFilesystem", "readOnlyRootFilesystem", `Unknown parameter in containerDefinitions[0]: "readOnlyRootFilesystem"`},
		{"ec2.json", `"size": 1`, `"size": "1"`, "Invalid type for parameter containerDefinitions[0].linuxParameters.tmpfs[0].size"},
		{"fargate.json", `"stopTimeout": 30`, `"stopTimeout": "30s"`, "Invalid type for parameter containerDefinitions[0].stopTimeout"},
	} {
		definition, err := os.ReadFile("ecs/" + faulty.file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "task.json")
		if err := os.WriteFile(path, bytes.Replace(definition, []byte(faulty.from), []byte(faulty.to), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := command(t.Context(), r.env, "aws ecs register-task-definition --cli-input-json file://"+path)
		if err == nil || !strings.Contains(out, faulty.says) {
			t.Errorf("%s with %s: %v\n%s", faulty.file, faulty.to, err, out)
		}
	}
	r.must(t, "aws iam create-policy --policy-name example-ecs --policy-document file://examples/ecs/task-role.json")
	password := r.must(t, "aws secretsmanager get-secret-value --secret-id example-ecs/db --query SecretString --output text")
	if len(password) < 24 || strings.Contains(r.output, strings.Split(password, `"`)[3]) {
		t.Errorf("the password is in the output, or is none:\n%s", r.output)
	}
}

// swarmEngine starts an engine for the Swarm example alone. One that leaves a
// swarm forgets the names of all containers that run, which other tests, and
// the user of this machine, go by. It has its own network and processes, and
// so no port or bridge of a swarm that the machine itself is in.
func swarmEngine(t *testing.T) []string {
	folder := t.TempDir()
	own := []string{"DOCKER_CONTEXT=", "DOCKER_HOST=unix://" + filepath.Join(folder, "socket")}
	settings := filepath.Join(folder, "daemon.json")
	if err := os.WriteFile(settings, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	driver, err := command(t.Context(), os.Environ(), "docker info --format '{{.Driver}}'")
	if err != nil {
		t.Fatalf("docker info: %v\n%s", err, driver)
	}
	servers.Start(t, exec.Command("unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child",
		"sh", "-ec", `ip link set lo up; exec dockerd "$@"`, "sh", "--config-file", settings,
		"--storage-driver", strings.TrimSpace(driver), "--host", "unix://"+filepath.Join(folder, "socket"),
		"--data-root", filepath.Join(folder, "data"), "--exec-root", filepath.Join(folder, "exec"), "--pidfile", filepath.Join(folder, "pid")))
	env := append(os.Environ(), own...)
	servers.WaitFor(t, "an engine", func(ctx context.Context) bool {
		_, err := command(ctx, env, "docker ps")
		return err == nil
	})
	if out, err := command(t.Context(), env, "DOCKER_HOST="+os.Getenv("DOCKER_HOST")+" docker save debian:bookworm-slim | docker load"); err != nil {
		t.Fatalf("docker load: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if state := swarm(t, env); state != "inactive" {
			t.Errorf("after the example the engine's swarm is %q", state)
		}
	})
	return own
}

func swarm(t *testing.T, env []string) string {
	t.Helper()
	// t.Context has ended when a cleanup runs.
	out, err := command(context.Background(), env, "docker info --format '{{.Swarm.LocalNodeState}} {{with .Swarm.Cluster}}{{.ID}}{{end}}'")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// checkSwarm tries to make leave.sh end a swarm that is in use, or another's.
func checkSwarm(t *testing.T, r *run) {
	before := swarm(t, r.env)
	r.must(t, "docker stack rm example-swarm")
	stays := func(why string) {
		t.Helper()
		if out := r.must(t, "examples/swarm/leave.sh"); out != "leave.sh: "+why+": it stays" || swarm(t, r.env) != before {
			t.Errorf("the swarm was %q and is %q:\n%s", before, swarm(t, r.env), out)
		}
	}
	stays("something else is in the swarm")
	r.must(t, "docker run -d --name example-swarm-other --entrypoint sleep example-swarm 60; docker secret rm example-swarm-age-key example-swarm-db-password")
	stays("containers are running, which would lose one another's names")
	r.must(t, "docker rm -f example-swarm-other")
	mark := r.folder + "/made-swarm"
	if err := os.Rename(mark, mark+".away"); err != nil {
		t.Fatal(err)
	}
	stays("the swarm is not the example's")
	// What the README removes has to be there.
	r.must(t, "mv "+mark+".away "+mark+"; for name in age-key db-password; do echo none | docker secret create example-swarm-$name -; done")
}

// TestDockerfile builds Dockerfile.example with each of the two builders, and
// starts what came of it as root and as somebody else.
func TestDockerfile(t *testing.T) {
	lock(t)
	env := environment(t)
	standIn(t, "debian:bookworm-slim", servers.DebianImage)
	for name, builder := range map[string]struct {
		variable string
		buildKit bool
	}{
		"classic":  {"DOCKER_BUILDKIT=0", false},
		"BuildKit": {"DOCKER_BUILDKIT=1", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{env: env}
			images := map[string]string{}
			for _, stage := range []string{"secret-init", "app"} {
				image := "example-" + strings.ToLower(name) + "-" + stage
				images[stage] = image
				build(t, env, builder.variable, "build -q -f Dockerfile.example --target "+stage+" -t "+image+" .")
				t.Cleanup(func() {
					if out, err := command(context.Background(), env, "docker rmi "+image); err != nil {
						t.Errorf("docker rmi: %v\n%s", err, out)
					}
				})
				if by := r.must(t, "docker history --format '{{.Comment}}' "+image); strings.Contains(by, "buildkit") != builder.buildKit {
					t.Errorf("%s was not built by %s:\n%s", image, name, by)
				}
			}
			alone := r.must(t, "docker run --rm "+images["secret-init"]+" version")
			if own := r.must(t, "bin/secret-init version"); alone != own {
				t.Errorf("the image of secret-init alone is %q, not %q", alone, own)
			}
			for _, flags := range []string{"", "--user 10001:10001 --read-only --cap-drop ALL"} {
				status := r.must(t, "docker run --rm "+flags+" "+images["app"]+" grep -E '^(Uid|Gid|Groups|CapBnd|NoNewPrivs):' /proc/self/status")
				const want = "Uid: 10001 10001 10001 10001 Gid: 10001 10001 10001 10001 Groups: 10001 CapBnd: 0000000000000000 NoNewPrivs: 1"
				if got := strings.Join(strings.Fields(status), " "); got != want {
					t.Errorf("started with %q the command is\n%s", flags, got)
				}
			}
		})
	}
}

// build runs docker build with the first client on PATH that has the builder:
// Docker's own client finds BuildKit in a plug-in, Debian's 20.10 brings it.
func build(t *testing.T, env []string, builder, arguments string) {
	t.Helper()
	var said string
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		client := filepath.Join(folder, "docker")
		if _, err := exec.LookPath(client); err != nil {
			continue
		}
		out, err := command(t.Context(), env, builder+" "+client+" "+arguments)
		if err == nil {
			return
		}
		said += client + ": " + out
		if !strings.Contains(out, "buildx component is missing") {
			break
		}
	}
	t.Fatalf("docker %s with %s (for BuildKit install docker-buildx):\n%s", arguments, builder, said)
}
