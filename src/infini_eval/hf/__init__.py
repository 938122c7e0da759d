"""Infini-Attention for transformers: importing this package lets `AutoModelForCausalLM` open exported checkpoints.

import infini_eval.hf
model = transformers.AutoModelForCausalLM.from_pretrained("exported")
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from infini_eval.hf.modeling_infini_llama import InfiniLlamaConfig, InfiniLlamaForCausalLM, InfiniLlamaModel

__all__ = ["InfiniLlamaConfig", "InfiniLlamaForCausalLM", "InfiniLlamaModel"]

AutoConfig.register(InfiniLlamaConfig.model_type, InfiniLlamaConfig, exist_ok=True)
AutoModel.register(InfiniLlamaConfig, InfiniLlamaModel, exist_ok=True)
AutoModelForCausalLM.register(InfiniLlamaConfig, InfiniLlamaForCausalLM, exist_ok=True)
