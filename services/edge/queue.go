package edge

import "sync"

// queue holds what waits to be written to one client, at most limit messages. An idle client's costs nothing.
type queue struct {
	limit int
	ready chan struct{} // has a token while a message waits

	mu      sync.Mutex
	waiting [][]byte
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, ready: make(chan struct{}, 1)}
}

// push returns false if the queue is full.
func (q *queue) push(text []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= q.limit {
		return false
	}
	q.waiting = append(q.waiting, text)
	q.signal()
	return true
}

// pop returns the oldest message, nil if none waits.
func (q *queue) pop() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	text := q.waiting[0]
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) == 0 {
		q.waiting = nil
		return text
	}
	q.signal()
	return text
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
