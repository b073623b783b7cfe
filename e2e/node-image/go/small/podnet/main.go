// podnet is the pod network of a kind cluster: it writes this node's CNI
// configuration from its pod range, keeps a route to every other node's range,
// and masquerades what leaves the pod network.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	netDir  = "/etc/cni/net.d/"
	period  = 2 * time.Second
)

type node struct {
	Spec   struct{ PodCIDR string }
	Status struct {
		Addresses []struct{ Type, Address string }
	}
}

func (n node) internalIP() string {
	for _, address := range n.Status.Addresses {
		if address.Type == "InternalIP" {
			return address.Address
		}
	}
	return ""
}

type cluster struct {
	client   *http.Client
	endpoint string
}

func connect() (*cluster, error) {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New(account + "ca.crt holds no certificate")
	}
	// kind sets this one; it works before kube-proxy has made the service address.
	endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT")
	if endpoint == "" {
		endpoint = os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return &cluster{&http.Client{Timeout: 10 * time.Second, Transport: transport}, endpoint}, nil
}

func (c *cluster) nodes() ([]node, error) {
	token, err := os.ReadFile(account + "token") // read each time: it is rotated
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, "https://"+c.endpoint+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list nodes: %s", response.Status)
	}
	var list struct{ Items []node }
	return list.Items, json.NewDecoder(response.Body).Decode(&list)
}

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func masquerade(podRange, podSubnet string) error {
	rule := []string{"POSTROUTING", "-s", podRange, "!", "-d", podSubnet,
		"-m", "comment", "--comment", "podnet", "-j", "MASQUERADE"}
	if run(append([]string{"iptables", "-w", "-t", "nat", "-C"}, rule...)...) == nil {
		return nil
	}
	return run(append([]string{"iptables", "-w", "-t", "nat", "-A"}, rule...)...)
}

func writeConfig(podRange string) error {
	config := map[string]any{
		"cniVersion": "0.4.0",
		"name":       "podnet",
		"plugins": []any{
			map[string]any{
				"type": "ptp", "mtu": 1500, "ipMasq": false,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": "/run/cni-ipam-state",
					"routes":  []any{map[string]string{"dst": "0.0.0.0/0"}},
					"ranges":  []any{[]any{map[string]string{"subnet": podRange}}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	// Renamed into place: containerd reacts to whatever stands in this folder.
	if err := os.WriteFile(netDir+".podnet", text, 0o644); err != nil {
		return err
	}
	return os.Rename(netDir+".podnet", netDir+"10-podnet.conflist")
}

// sync brings this node up to date and returns the pod range it is set up for.
func sync(c *cluster, own string) (string, error) {
	nodes, err := c.nodes()
	if err != nil {
		return own, err
	}
	for _, n := range nodes {
		podRange, ip := n.Spec.PodCIDR, n.internalIP()
		switch {
		case podRange == "" || ip == "" || podRange == own:
		case ip != os.Getenv("HOST_IP"):
			if err := run("ip", "route", "replace", podRange, "via", ip); err != nil {
				return own, err
			}
		default:
			subnet, _, _ := strings.Cut(os.Getenv("POD_SUBNET"), ",")
			if err := errors.Join(masquerade(podRange, subnet), writeConfig(podRange)); err != nil {
				return own, err
			}
			log.Print("this node's pods are in ", podRange)
			own = podRange
		}
	}
	return own, nil
}

func main() {
	c, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	for own := ""; ; {
		if own, err = sync(c, own); err != nil {
			log.Print(err)
		}
		select {
		case <-stop.Done():
			return
		case <-time.After(period):
		}
	}
}
