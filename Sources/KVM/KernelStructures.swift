/// A kernel structure as bytes, which is how state is kept: the kernel's layouts
/// are stable ABI, and nothing here needs to look inside them.
func bytes<Structure>(of structure: Structure) -> [UInt8] {
  // SAFETY: a C structure is plain data; its bytes are copied out.
  withUnsafeBytes(of: structure) { Array($0) }
}

/// The structure that `bytes` were taken from; `nil` when the size differs.
func structure<Structure>(_ type: Structure.Type, from bytes: [UInt8]) -> Structure? {
  guard bytes.count == MemoryLayout<Structure>.size else { return nil }
  // SAFETY: the size was checked, and any bit pattern is a value of a C structure.
  return bytes.withUnsafeBytes { $0.loadUnaligned(as: Structure.self) }
}

/// State that was saved cannot belong to this kernel.
func badState(_ part: String) -> KVMError {
  KVMError(.operation, "the saved \(part) has the wrong size; it was saved by something else")
}
