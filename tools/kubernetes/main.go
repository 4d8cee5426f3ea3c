// Command kubernetes stands in for a cluster where there is none. It decodes a
// manifest against the types that Kubernetes publishes, as strictly as the API
// server does, and starts the pod's containers with Docker, one after the
// other, with the settings of the manifest. What it cannot stand in for is an
// error: no setting is passed over.
//
// It is not the API server: of the values only those are checked that it uses.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const usage = `usage: kubernetes [-run FOLDER [-network NAME]] MANIFEST

Decodes MANIFEST. With -run starts its pod's containers with Docker: a volume
is a folder of its name in FOLDER, where what only a cluster can make (a service
account's token) has to be already.
`

func main() {
	flags := flag.NewFlagSet("kubernetes", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	folder := flags.String("run", "", "")
	network := flags.String("network", "none", "")
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() != 1 {
		flags.Usage()
		os.Exit(64)
	}
	if err := stand(flags.Arg(0), *folder, *network); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes: error:", err)
		os.Exit(1)
	}
}

func stand(manifest, folder, network string) error {
	pod, err := read(manifest)
	if err != nil || folder == "" {
		return err
	}
	commands, err := translate(pod, folder, network)
	if err != nil {
		return err
	}
	for _, arguments := range commands {
		cmd := exec.Command("docker", arguments...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("docker %q: %w", arguments, err)
		}
	}
	return nil
}

// read decodes every document of a manifest, and gives its one pod.
func read(path string) (*corev1.Pod, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var pod *corev1.Pod
	for documents := utilyaml.NewYAMLReader(bufio.NewReader(file)); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		object, err := decode(document)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if found, ok := object.(*corev1.Pod); ok {
			if pod != nil {
				return nil, fmt.Errorf("%s has more than one pod", path)
			}
			pod = found
		}
	}
	if pod == nil {
		return nil, fmt.Errorf("%s has no pod", path)
	}
	return pod, nil
}

// decode refuses unknown fields, fields in another letter case, fields twice,
// and values of another type. sigs.k8s.io/json is what the API server itself
// uses for that; encoding/json would take any letter case.
func decode(document []byte) (object any, err error) {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	var kind metav1.TypeMeta
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &kind); err != nil {
		return nil, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Pod":
		object = &corev1.Pod{}
	case "v1 ServiceAccount":
		object = &corev1.ServiceAccount{}
	default:
		return nil, fmt.Errorf("apiVersion %q, kind %q: not known here", kind.APIVersion, kind.Kind)
	}
	strict, err := kjson.UnmarshalStrict(text, object)
	if err != nil {
		return nil, err
	}
	return object, errors.Join(strict...)
}
