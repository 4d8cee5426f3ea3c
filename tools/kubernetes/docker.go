package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// translate gives the docker commands that stand in for a pod. What it has
// seen to is taken out of the pod, and what is left over is an error.
func translate(pod *corev1.Pod, folder, network string) ([][]string, error) {
	spec := pod.Spec
	defaults := corev1.PodSecurityContext{}
	if spec.SecurityContext != nil {
		defaults = *spec.SecurityContext
	}
	if defaults.SeccompProfile != nil && defaults.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault {
		// It is what Docker does by itself.
		defaults.SeccompProfile = nil
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		return nil, errors.New("the pod mounts the token of its service account (automountServiceAccountToken)")
	}
	if spec.RestartPolicy != corev1.RestartPolicyNever {
		return nil, fmt.Errorf("restartPolicy %q", spec.RestartPolicy)
	}
	volumes := map[string]volume{}
	for _, v := range spec.Volumes {
		made, err := makeVolume(v, filepath.Join(folder, v.Name), spec.ServiceAccountName)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		volumes[v.Name] = made
	}
	var commands [][]string
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		flags, err := run(container, defaults, volumes)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", container.Name, err)
		}
		commands = append(commands, append([]string{"run", "--rm", "--network", network}, flags...))
	}
	spec.ServiceAccountName, spec.AutomountServiceAccountToken, spec.RestartPolicy = "", nil, ""
	spec.SecurityContext, spec.Volumes, spec.InitContainers, spec.Containers = nil, nil, nil, nil
	defaults.RunAsNonRoot, defaults.RunAsUser, defaults.RunAsGroup = nil, nil, nil
	pod.Spec, pod.TypeMeta, pod.ObjectMeta.Name = corev1.PodSpec{}, metav1.TypeMeta{}, ""
	return commands, errors.Join(nothingLeft(*pod), nothingLeft(spec), nothingLeft(defaults))
}

// nothingLeft names the fields of a structure that are set.
func nothingLeft(structure any) error {
	value := reflect.ValueOf(structure)
	var err error
	for i := range value.NumField() {
		if !value.Field(i).IsZero() {
			err = errors.Join(err, fmt.Errorf("%s is nothing that Docker can stand in for here", value.Type().Field(i).Name))
		}
	}
	return err
}

// volume is what stands in for one: a folder, or a tmpfs of one container.
type volume struct {
	folder  string
	options string
	users   int
}

func makeVolume(v corev1.Volume, folder, account string) (volume, error) {
	source := v.VolumeSource
	switch {
	case source.EmptyDir != nil && source.EmptyDir.Medium == corev1.StorageMediumMemory:
		made := volume{options: "mode=0777"}
		if limit := source.EmptyDir.SizeLimit; limit != nil {
			made.options += fmt.Sprintf(",size=%d", limit.Value())
		}
		source.EmptyDir = nil
		return made, nothingLeft(source)
	case source.EmptyDir != nil && *source.EmptyDir == corev1.EmptyDirVolumeSource{}:
		source.EmptyDir = nil
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return volume{}, err
		}
		// As the kubelet makes it, for whatever user.
		return volume{folder: folder}, errors.Join(os.Chmod(folder, 0o777), nothingLeft(source))
	case source.Projected != nil:
		for _, projection := range source.Projected.Sources {
			token := projection.ServiceAccountToken
			if token == nil {
				return volume{}, errors.New("a projection that is no service account's token")
			}
			if err := checkToken(filepath.Join(folder, token.Path), token.Audience, account); err != nil {
				return volume{}, err
			}
		}
		projected := *source.Projected
		source.Projected, projected.Sources = nil, nil
		return volume{folder: folder}, errors.Join(nothingLeft(source), nothingLeft(projected))
	}
	return volume{}, errors.New("not of a known kind")
}

// checkToken: the token that stands in for the kubelet's is the one that the
// manifest asks for.
func checkToken(path, audience, account string) error {
	token, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return fmt.Errorf("%s is no token", path)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var claims struct {
		Audience []string `json:"aud"`
		Subject  string   `json:"sub"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !slices.Equal(claims.Audience, []string{audience}) || claims.Subject != "system:serviceaccount:default:"+account {
		return fmt.Errorf("%s is for %q and %q, not for %q and the service account %q", path, claims.Audience, claims.Subject, audience, account)
	}
	return nil
}

// run gives docker run's flags and arguments.
func run(container corev1.Container, defaults corev1.PodSecurityContext, volumes map[string]volume) ([]string, error) {
	flags, err := security(container.SecurityContext, defaults)
	if err != nil {
		return nil, err
	}
	for _, variable := range container.Env {
		if variable.ValueFrom != nil {
			return nil, fmt.Errorf("%s: valueFrom", variable.Name)
		}
		flags = append(flags, "--env", variable.Name+"="+variable.Value)
	}
	for _, mount := range container.VolumeMounts {
		v, ok := volumes[mount.Name]
		if !ok {
			return nil, fmt.Errorf("there is no volume %s", mount.Name)
		}
		switch {
		case v.folder == "" && (v.users > 0 || mount.ReadOnly):
			return nil, fmt.Errorf("volume %s in memory, in a second container or read-only", mount.Name)
		case v.folder == "":
			flags = append(flags, "--tmpfs", mount.MountPath+":"+v.options)
		case mount.ReadOnly:
			flags = append(flags, "--volume", v.folder+":"+mount.MountPath+":ro")
		default:
			flags = append(flags, "--volume", v.folder+":"+mount.MountPath)
		}
		v.users++
		volumes[mount.Name] = v
		mount.Name, mount.MountPath, mount.ReadOnly = "", "", false
		if err := nothingLeft(mount); err != nil {
			return nil, err
		}
	}
	if len(container.Command) == 0 {
		return nil, errors.New("without command: the image's entry point runs")
	}
	flags = append(flags, "--entrypoint", container.Command[0], container.Image)
	flags = append(append(flags, container.Command[1:]...), container.Args...)
	container.Name, container.Image, container.ImagePullPolicy = "", "", ""
	container.Command, container.Args, container.Env = nil, nil, nil
	container.SecurityContext, container.VolumeMounts = nil, nil
	return flags, nothingLeft(container)
}

// security gives the flags of a container's security context, which wins over
// that of the pod.
func security(context *corev1.SecurityContext, defaults corev1.PodSecurityContext) (flags []string, err error) {
	if context == nil {
		return nil, errors.New("without a securityContext")
	}
	own := *context
	user, group, nonRoot := defaults.RunAsUser, defaults.RunAsGroup, defaults.RunAsNonRoot
	if own.RunAsUser != nil {
		user = own.RunAsUser
	}
	if own.RunAsGroup != nil {
		group = own.RunAsGroup
	}
	if own.RunAsNonRoot != nil {
		nonRoot = own.RunAsNonRoot
	}
	if user == nil || group == nil {
		return nil, errors.New("without runAsUser or runAsGroup")
	}
	if nonRoot != nil && *nonRoot && *user == 0 {
		return nil, errors.New("runAsNonRoot, and runAsUser is 0")
	}
	flags = []string{"--user", fmt.Sprintf("%d:%d", *user, *group)}
	if own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem {
		flags = append(flags, "--read-only")
	}
	if own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation {
		flags = append(flags, "--security-opt", "no-new-privileges")
	}
	if own.Capabilities != nil {
		for _, capability := range own.Capabilities.Drop {
			flags = append(flags, "--cap-drop", string(capability))
		}
		for _, capability := range own.Capabilities.Add {
			flags = append(flags, "--cap-add", string(capability))
		}
	}
	own.RunAsUser, own.RunAsGroup, own.RunAsNonRoot = nil, nil, nil
	own.ReadOnlyRootFilesystem, own.AllowPrivilegeEscalation, own.Capabilities = nil, nil, nil
	return flags, nothingLeft(own)
}
