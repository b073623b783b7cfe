// runc-nosysres stands in for runc on a machine that lacks capabilities: it
// takes out of the OCI process what this machine may not give, then becomes
// the runc named in RUNC_NOSYSRES_REAL (default: the runc on PATH).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// capabilities in the order of their bits, linux/capability.h.
var capabilities = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK
	IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
	BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// limits is what a child of this process may have at most.
type limits struct {
	permitted map[string]bool
	oomFloor  int64
}

func ownLimits(proc string) (limits, error) {
	own := limits{permitted: map[string]bool{}}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return own, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		mask, found := strings.CutPrefix(line, "CapPrm:")
		if !found {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil {
			return own, err
		}
		for bit, name := range capabilities {
			if bits&(1<<uint(bit)) != 0 {
				own.permitted["CAP_"+name] = true
			}
		}
	}
	score, err := os.ReadFile(filepath.Join(proc, "oom_score_adj"))
	if err != nil {
		return own, err
	}
	own.oomFloor, err = strconv.ParseInt(strings.TrimSpace(string(score)), 10, 64)
	return own, err
}

// narrow edits an OCI process object in place.
func narrow(process map[string]any, own limits) {
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for set, value := range sets {
			wanted, _ := value.([]any)
			kept := []any{}
			for _, name := range wanted {
				if text, _ := name.(string); own.permitted[text] {
					kept = append(kept, name)
				}
			}
			sets[set] = kept
		}
	}
	if number, ok := process["oomScoreAdj"].(json.Number); ok {
		if score, err := number.Int64(); err == nil && score < own.oomFloor {
			process["oomScoreAdj"] = own.oomFloor
		}
	}
}

// edit rewrites the JSON file: itself a process object, or one under "process".
func edit(path string, underProcess bool, own limits) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Numbers stay as they are written: a float64 would round 64-bit limits.
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var spec map[string]any
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	process := spec
	if underProcess {
		process, _ = spec["process"].(map[string]any)
	}
	narrow(process, own)
	text, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, info.Mode())
}

// target tells which file of a runc command line holds the process, if any.
func target(args []string) (path string, underProcess bool) {
	verb, bundle, process := "", "", ""
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "create", "run", "exec":
			if verb == "" {
				verb = name
			}
		case "--bundle", "-b":
			bundle = value
		case "--process", "-p":
			process = value
		}
	}
	switch {
	case (verb == "create" || verb == "run") && bundle != "":
		return filepath.Join(bundle, "config.json"), true
	case verb == "exec" && process != "":
		return process, false
	}
	return "", false
}

func run() error {
	if path, underProcess := target(os.Args[1:]); path != "" {
		own, err := ownLimits("/proc/self")
		if err != nil {
			return err
		}
		if err := edit(path, underProcess, own); err != nil {
			return err
		}
	}
	real := os.Getenv("RUNC_NOSYSRES_REAL")
	if real == "" {
		found, err := exec.LookPath("runc")
		if err != nil {
			return err
		}
		real = found
	}
	return syscall.Exec(real, append([]string{"runc"}, os.Args[1:]...), os.Environ())
}

func main() {
	fmt.Fprintln(os.Stderr, "runc-nosysres:", run())
	os.Exit(1)
}
