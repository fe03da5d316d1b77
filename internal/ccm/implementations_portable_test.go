package ccm

func implementations() []implementation {
	return []implementation{{"portable", (*Key).Init}}
}
