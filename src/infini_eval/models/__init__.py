"""The Infini-Attention Llama: `naive` states the equations, the other files stream them."""
