import DeviceModel

extension SMBIOSTables {
  /// Gives the structures that are in guest memory already this machine's UUID, where they
  /// are of a machine like it and its guest left them as they were. The entry point's
  /// checksums do not cover it (DSP0134 2.8, section 5.2.1).
  ///
  /// - Parameter range: where the entry point is looked for, at multiples of 16.
  package func renew(in memory: any GuestMemory, anchorsIn range: Range<UInt64>) {
    guard let segment = bytes(memory, range.lowerBound, Int(range.upperBound - range.lowerBound))
    else { return }
    let anchor = Array("_SM_".utf8)
    for place in stride(from: 0, through: segment.count - 32, by: 16)
    where segment[place] == anchor[0] && segment[place..<place + 4].elementsEqual(anchor) {
      let address = segment[place + 24..<place + 28].reversed().reduce(0) { $0 << 8 | UInt64($1) }
      guard var found = bytes(memory, address, structures.count) else { continue }
      found.replaceSubrange(uuidPlace, with: structures[uuidPlace])
      guard found == structures else { continue }
      write(Array(structures[uuidPlace]), memory, address + UInt64(uuidPlace.lowerBound))
    }
  }

  private func bytes(_ memory: any GuestMemory, _ address: UInt64, _ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the pointer covers `bytes` and does not leave the closure.
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(GuestMemoryError) in try memory.read(at: address, into: buffer) }
    }
    if case .success = result { return bytes }
    return nil
  }

  private func write(_ bytes: [UInt8], _ memory: any GuestMemory, _ address: UInt64) {
    // SAFETY: the pointer covers `bytes` and does not leave the closure.
    bytes.withUnsafeBytes { buffer in
      // It was read from there.
      _ = Result { () throws(GuestMemoryError) in try memory.write(at: address, from: buffer) }
    }
  }
}
