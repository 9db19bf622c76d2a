package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/bus"
)

// The sizes of a CJ/T 188 read of current data, and what the floor says about every meter.
const (
	commandBytes = 16
	answerBytes  = 35
	floorAnswer  = `{"AccumVal":12.34}`
)

type floorCommand struct{}

func (floorCommand) Run(ctx context.Context) error {
	return serveFloor(ctx, func(url string) { fmt.Println("floor is ready:", url) })
}

// serveFloor is the least that a click can cost with this WebSocket library, this NATS and TCP: every message is passed
// on unread. A WebSocket opened with ?device=N asks device N. It calls ready with its URL and serves until ctx ends.
func serveFloor(ctx context.Context, ready func(url string)) error {
	store, err := os.MkdirTemp("", "dianchao-floor-")
	if err != nil {
		return fmt.Errorf("make a temporary directory for NATS: %w", err)
	}
	defer os.RemoveAll(store)
	server, err := bus.Embed("127.0.0.1:0", store)
	if err != nil {
		return err
	}
	defer server.Close()
	var owned sync.WaitGroup // connections, and who accepts them
	defer owned.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	gateway, err := bus.Connect(ctx, bus.Options{URL: server.URL(), Name: "floor gateway"})
	if err != nil {
		return err
	}
	defer gateway.Close()
	for device := range concentrators {
		if err := linkDevice(ctx, &owned, gateway, subjectOf(strconv.Itoa(device))); err != nil {
			return fmt.Errorf("link device %d: %w", device, err)
		}
	}
	if err := gateway.Flush(); err != nil {
		return fmt.Errorf("subscribe for the devices: %w", err)
	}
	edge, err := bus.Connect(ctx, bus.Options{URL: server.URL(), Name: "floor edge"})
	if err != nil {
		return err
	}
	defer edge.Close()
	return serveSockets(ctx, &owned, edge, ready)
}

func subjectOf(device string) string { return "floor." + device }

// linkDevice starts a device that answers every command at once, and passes on to it what is published for it. NATS
// hands a subscription one message after the other, which keeps the exchanges of a device apart.
func linkDevice(ctx context.Context, owned *sync.WaitGroup, nc *nats.Conn, subject string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	far, err := listener.Accept()
	if err != nil {
		near.Close()
		return err
	}
	context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	owned.Go(func() { answerCommands(far) })
	command, answer := make([]byte, commandBytes), make([]byte, answerBytes)
	_, err = nc.Subscribe(subject, func(m *nats.Msg) {
		if _, err := near.Write(command); err != nil {
			return // the floor is stopping, as wherever an error is dropped here
		}
		if _, err := io.ReadFull(near, answer); err == nil {
			_ = nc.Publish(m.Reply, []byte(floorAnswer))
		}
	})
	return err
}

func answerCommands(conn net.Conn) {
	command, answer := make([]byte, commandBytes), make([]byte, answerBytes)
	for {
		if _, err := io.ReadFull(conn, command); err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func serveSockets(ctx context.Context, owned *sync.WaitGroup, nc *nats.Conn, ready func(url string)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for WebSockets: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		owned.Add(1) // owned.Wait is called after Serve has returned, and by then ctx has ended
		defer owned.Done()
		if conn, err := websocket.Accept(w, r, nil); err == nil {
			passOn(ctx, conn, nc, subjectOf(r.URL.Query().Get("device")))
		}
	})}
	context.AfterFunc(ctx, func() { server.Close() })
	ready("http://" + listener.Addr().String())
	if err := server.Serve(listener); ctx.Err() == nil {
		return fmt.Errorf("serve WebSockets: %w", err)
	}
	return nil
}

// passOn serves one WebSocket until either end is gone.
func passOn(ctx context.Context, conn *websocket.Conn, nc *nats.Conn, subject string) {
	defer conn.CloseNow()
	inbox := nats.NewInbox()
	answers, err := nc.Subscribe(inbox, func(m *nats.Msg) { _ = conn.Write(ctx, websocket.MessageText, m.Data) })
	if err != nil {
		return
	}
	defer func() { _ = answers.Unsubscribe() }()
	for {
		_, question, err := conn.Read(ctx)
		if err != nil || nc.PublishRequest(subject, inbox, question) != nil {
			return
		}
	}
}
