package bus

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a NATS server inside this process, JetStream on.
type Server struct{ s *server.Server }

const readyTimeout = 10 * time.Second

// Embed starts a NATS server that listens on address (HOST:PORT, port 0 for a free one) and keeps its JetStream
// files in dir. It returns an error that says so if the address is taken.
func Embed(address, dir string) (*Server, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the NATS address %q is not HOST:PORT: %w", address, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("the NATS address %q has no numeric port", address)
	}
	// nats-server ends the process over a taken port, so try it first.
	probe, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("NATS cannot listen on %s, choose another address with --nats (port 0 picks a free one): %w", address, err)
	}
	probe.Close()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "dianchao", Host: host, Port: port,
		JetStream: true, StoreDir: dir,
		NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, fmt.Errorf("embed a NATS server: %w", err)
	}
	go s.Start()
	if !s.ReadyForConnections(readyTimeout) {
		s.Shutdown()
		return nil, errors.New("the embedded NATS server did not become ready within " + readyTimeout.String())
	}
	return &Server{s}, nil
}

// URL is where clients connect.
func (s *Server) URL() string { return s.s.ClientURL() }

// Close stops the server and waits until it is down.
func (s *Server) Close() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}
