package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

const controlTimeout = 2 * time.Second

// ControlAddr is HOST:PORT of the HTTP port that pulls plugs, for Config.Control with port 0. It is empty until
// Run listens, which is before Ready.
func (s *Simulator) ControlAddr() string {
	address, _ := s.controlAddr.Load().(string)
	return address
}

// Control serves three requests, all answered in JSON:
//
//	GET  /concentrators               every concentrator with its link and the requests its meters saw
//	POST /concentrators/{id}/unplug   drops the link and keeps it away; answers the concentrator as it is then
//	POST /concentrators/{id}/plug     lets it connect again
//
// An unknown concentrator is 404 with {"error":"…"}. Pages of other origins are refused.
func (s *Simulator) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /concentrators", func(w http.ResponseWriter, _ *http.Request) {
		list := make([]condition, 0, len(s.concentrators))
		for _, c := range s.concentrators {
			list = append(list, c.condition())
		}
		writeJSON(w, http.StatusOK, list)
	})
	mux.HandleFunc("POST /concentrators/{id}/unplug", s.onPlug((*concentrator).unplug))
	mux.HandleFunc("POST /concentrators/{id}/plug", s.onPlug((*concentrator).plug))
	return http.NewCrossOriginProtection().Handler(mux)
}

func (s *Simulator) onPlug(change func(*concentrator)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := meter.ParseConcentratorID(r.PathValue("id"))
		if err != nil {
			writeJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			return
		}
		c, err := s.concentrator(id)
		if err != nil {
			writeJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			return
		}
		change(c)
		writeJSON(w, http.StatusOK, c.condition())
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("the simulator's control answer was not delivered", "err", err)
	}
}

// serveControl serves Control until the returned function is called, which waits for the server's end.
func (s *Simulator) serveControl(ctx context.Context) (func(), error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Control)
	if err != nil {
		return nil, fmt.Errorf("the simulator's control port cannot listen on %s: %w", s.config.Control, err)
	}
	server := &http.Server{Handler: s.Control(), ReadTimeout: controlTimeout, WriteTimeout: controlTimeout}
	s.controlAddr.Store(listener.Addr().String())
	slog.Info("the simulator's plugs can be pulled", "url", "http://"+listener.Addr().String()+"/concentrators")
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the simulator's control port failed", "err", err)
		}
	}()
	return func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlTimeout)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			server.Close()
		}
		<-served
	}, nil
}
