package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// rig is a gateway process and a NATS in this one. Commands go to the gateway over NATS directly.
type rig struct {
	binary  string
	nc      *nats.Conn
	gateway *process
	up      *tally
	closers []func()
}

// startRig starts NATS and a gateway. The caller closes the rig.
func startRig(ctx context.Context, binary string, gatewayFlags ...string) (r *rig, err error) {
	r = &rig{binary: binary, up: newTally()}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	store, err := os.MkdirTemp("", "dianchao-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory for NATS: %w", err)
	}
	r.closers = append(r.closers, func() { os.RemoveAll(store) })
	server, err := bus.Embed("127.0.0.1:0", store)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, server.Close)
	if r.nc, err = bus.Connect(ctx, bus.Options{URL: server.URL(), Name: "bench"}); err != nil {
		return nil, err
	}
	r.closers = append(r.closers, r.nc.Close)
	if _, err = r.nc.Subscribe(meter.SubjectLinks, r.up.take); err != nil {
		return nil, fmt.Errorf("listen for links: %w", err)
	}
	if r.gateway, err = start(ctx, binary, append([]string{"gateway", "--log-level=warn", "--nats=" + server.URL(), "--listen=cjt188=127.0.0.1:0"}, gatewayFlags...)...); err != nil {
		return nil, err
	}
	r.closers = append(r.closers, r.gateway.stop)
	return r, nil
}

func (r *rig) close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
}

// simulate starts a town in a process of its own and waits until it has logged in. Its url is where its plugs are.
func (r *rig) simulate(ctx context.Context, args ...string) (*process, error) {
	control, err := freePort()
	if err != nil {
		return nil, err
	}
	town, err := start(ctx, r.binary, append([]string{"simulator", "--log-level=warn", "--simulate-control=" + control,
		"--gateway=" + strings.TrimPrefix(r.gateway.url, "cjt188=")}, args...)...)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, town.stop)
	town.url = "http://" + control + "/concentrators"
	return town, nil
}

// freePort returns an address that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// read asks for one meter and returns how long its answer took; the error says what was wrong with it.
func (r *rig) read(ctx context.Context, e simulator.Entry, c meter.Command) (time.Duration, error) {
	c.Meter = e.Meter
	body, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout+time.Second)
	defer cancel()
	k := click{entry: e}
	began := time.Now()
	m, err := r.nc.RequestWithContext(ctx, meter.SubjectRead(e.Concentrator), body)
	k.at = time.Now()
	took := k.at.Sub(began)
	if err != nil {
		return took, fmt.Errorf("meter %s: %w", e.Meter, err)
	}
	k.answer = m.Data
	var a meter.Answer
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		return took, k.explain(err)
	case a.Error != nil:
		return took, fmt.Errorf("meter %s: %w", e.Meter, a.Error)
	case a.Concentrator != e.Concentrator || a.Meter != e.Meter || a.Reading == nil || a.Reading.Volume == nil:
		return took, k.explain(errWrong)
	}
	if err := k.judgeVolume(*a.Reading.Volume); err != nil {
		return took, k.explain(err)
	}
	return took, nil
}
