package message

// list is a doubly linked list through nodes that stand in their values, so
// that a value leaves it from any place without a search.
type list[T any] struct {
	head, tail *node[T]
	n          int
}

type node[T any] struct {
	prev, next *node[T]
	in         *list[T]
	value      T
}

// push appends the node, which must be in no list.
func (l *list[T]) push(n *node[T], value T) {
	n.prev, n.next, n.in, n.value = l.tail, nil, l, value
	if l.tail == nil {
		l.head = n
	} else {
		l.tail.next = n
	}
	l.tail = n
	l.n++
}

// remove takes the node out of its list, if it is in one.
func (n *node[T]) remove() {
	l := n.in
	if l == nil {
		return
	}
	if n.prev == nil {
		l.head = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.tail = n.prev
	} else {
		n.next.prev = n.prev
	}
	l.n--
	var zero T
	n.prev, n.next, n.in, n.value = nil, nil, nil, zero
}
