// crictl knows the few verbs that kind asks a node for: inspecti, images, ps.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const socket = "unix:///run/containerd/containerd.sock"

func inspect(ctx context.Context, client cri.ImageServiceClient, names []string) error {
	for _, name := range names {
		spec := &cri.ImageSpec{Image: name}
		answer, err := client.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
		if err != nil {
			return err
		}
		if answer.Image == nil {
			return fmt.Errorf("no such image %q present", name) // kind looks for this text
		}
		status := map[string]any{
			"id":          answer.Image.Id,
			"repoTags":    answer.Image.RepoTags,
			"repoDigests": answer.Image.RepoDigests,
			"size":        answer.Image.Size,
		}
		text, err := json.MarshalIndent(map[string]any{"status": status}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return nil
}

func images(ctx context.Context, client cri.ImageServiceClient) error {
	answer, err := client.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	for _, image := range answer.Images {
		fmt.Println(image.RepoTags, image.Id, image.Size)
	}
	return nil
}

func containers(ctx context.Context, client cri.RuntimeServiceClient) error {
	answer, err := client.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return err
	}
	for _, c := range answer.Containers {
		pod := c.Labels["io.kubernetes.pod.name"]
		fmt.Printf("%.13s %s %s %d %s\n", c.Id, c.State, c.Metadata.Name, c.Metadata.Attempt, pod)
	}
	return nil
}

func run(args []string) error {
	words := []string{}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
		}
	}
	if len(words) == 0 {
		return fmt.Errorf("usage: crictl inspecti IMAGE... | images | ps")
	}
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch words[0] {
	case "inspecti":
		return inspect(ctx, cri.NewImageServiceClient(conn), words[1:])
	case "images":
		return images(ctx, cri.NewImageServiceClient(conn))
	case "ps":
		return containers(ctx, cri.NewRuntimeServiceClient(conn))
	}
	return fmt.Errorf("crictl: %s is not known here; use the official node image for it", words[0])
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
