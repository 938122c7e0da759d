"""Diagnosis of the native model's memory: is it alive, does it hold the answer, does anything read it?"""
