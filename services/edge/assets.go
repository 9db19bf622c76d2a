package edge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/web"
)

// contentPolicy lets the console load its own files and open a WebSocket, and nothing else. Browsers that do not count
// ws: under 'self' need it said.
const contentPolicy = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// assets are the console's files by the path they are served under.
type assets map[string]asset

type asset struct {
	name string
	body []byte
	etag string
}

func loadAssets() (assets, error) {
	out := assets{}
	err := fs.WalkDir(web.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := web.Files.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		out["/"+path] = asset{d.Name(), body, `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the console's files: %w", err)
	}
	index, ok := out["/index.html"]
	if !ok {
		return nil, fmt.Errorf("the console has no index.html")
	}
	out["/"] = index
	return out, nil
}

// serve answers with the file, or tells a browser that has it that it is the same.
func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	file, ok := a[r.URL.Path]
	if !ok {
		writeError(w, http.StatusNotFound, meter.Errorf(meter.CodeBadCommand, "there is nothing at %s", r.URL.Path))
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", file.etag)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	// Pages of other hosts may import the client library.
	h.Set("Access-Control-Allow-Origin", "*")
	http.ServeContent(w, r, file.name, time.Time{}, bytes.NewReader(file.body))
}
