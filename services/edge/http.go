package edge

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// statuses are the HTTP statuses of the codes.
var statuses = map[meter.Code]int{
	meter.CodeBadCommand:          http.StatusBadRequest,
	meter.CodeConcentratorOffline: http.StatusNotFound,
	meter.CodeCancelled:           http.StatusConflict,
	meter.CodeRateLimited:         http.StatusTooManyRequests,
	meter.CodeTooManyCommands:     http.StatusTooManyRequests,
	meter.CodeBusy:                http.StatusTooManyRequests,
	meter.CodeInternal:            http.StatusInternalServerError,
	meter.CodeMeterRefused:        http.StatusBadGateway,
	meter.CodeBadAnswer:           http.StatusBadGateway,
	meter.CodeLinkLost:            http.StatusBadGateway,
	meter.CodeDraining:            http.StatusServiceUnavailable,
	meter.CodeMeterSilent:         http.StatusGatewayTimeout,
	meter.CodeExpired:             http.StatusGatewayTimeout,
}

// answerTime is how long a client may take to read an answer.
const answerTime = 30 * time.Second

func (e *Edge) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/reads", only(http.MethodPost, e.serveRead))
	mux.HandleFunc("/v1/concentrators", only(http.MethodGet, e.serveConcentrators))
	mux.HandleFunc("/v1/concentrators/{concentrator}/frames", only(http.MethodGet, e.serveFrames))
	mux.HandleFunc("/v1/meters", only(http.MethodGet, e.serveMeters))
	mux.HandleFunc("/healthz", only(http.MethodGet, e.serveHealth))
	mux.HandleFunc("/readyz", only(http.MethodGet, e.serveReadiness))
	mux.HandleFunc("/", only(http.MethodGet, e.serveRoot))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// A client that never reads its answer must not hold it for ever; a read waits at most meter.MaxTimeout first.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(meter.MaxTimeout + answerTime)); err != nil {
			e.log.Debug("no deadline for the answer", "err", err)
		}
		mux.ServeHTTP(w, r)
	})
}

// only answers 405 to every other method. GET includes HEAD.
func only(method string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
			w.Header().Set("Allow", method)
			writeError(w, http.StatusMethodNotAllowed, meter.Errorf(meter.CodeBadCommand, "%s takes %s, not %s", r.URL.Path, method, r.Method))
			return
		}
		h(w, r)
	}
}

// serveRoot is the WebSocket on / and the console.
func (e *Edge) serveRoot(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		e.serveSocket(w, r)
		return
	}
	e.assets.serve(w, r)
}

func (e *Edge) serveConcentrators(w http.ResponseWriter, _ *http.Request) {
	if !e.connected() {
		writeUnavailable(w, errCutOff)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Links []meter.Link `json:"links"`
	}{e.board.all()})
}

func (e *Edge) serveMeters(w http.ResponseWriter, r *http.Request) {
	var of meter.ConcentratorID
	if s := r.URL.Query().Get("concentrator"); s != "" {
		var err error
		if of, err = meter.ParseConcentratorID(s); err != nil {
			writeError(w, http.StatusBadRequest, meter.AsError(err))
			return
		}
	}
	listed, total := e.directory.of(of)
	writeJSON(w, http.StatusOK, struct {
		Meters []ListedMeter `json:"meters"`
		Total  int           `json:"total"` // how many there are; only the first are in Meters
	}{listed, total})
}

func (e *Edge) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeStatus(w, "alive")
}

func (e *Edge) serveReadiness(w http.ResponseWriter, _ *http.Request) {
	switch {
	case e.isDraining():
		writeUnavailable(w, errDraining)
	case !e.connected():
		writeUnavailable(w, errCutOff)
	default:
		writeStatus(w, "ready")
	}
}

func writeStatus(w http.ResponseWriter, status string) {
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{status})
}

// writeUnavailable is for what another attempt, or another node, can serve in a few seconds.
func writeUnavailable(w http.ResponseWriter, why *meter.Error) {
	w.Header().Set("Retry-After", "5")
	writeError(w, http.StatusServiceUnavailable, why)
}

func writeError(w http.ResponseWriter, status int, why *meter.Error) {
	writeJSON(w, status, struct {
		Error *meter.Error `json:"error"`
	}{why})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeBody(w, status, encode(v))
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", fmt.Sprint(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error here means that the client is gone.
	_, _ = w.Write(append(body, '\n'))
}
