/// The script `etc/table-loader`: 128-byte commands that firmware carries out to
/// place tables in guest memory (QEMU docs/specs, "fw_cfg table loader").
struct TableLoaderScript {
  private(set) var bytes: [UInt8] = []

  private static let entrySize = 128
  private static let nameSize = 56

  /// Load `file` into memory, in the segment below 1 MiB or anywhere below 4 GiB.
  mutating func place(_ file: String, alignment: UInt32, inFirmwareSegment: Bool) {
    append(1, name(file) + LittleEndian.bytes(alignment) + [inFirmwareSegment ? 2 : 1])
  }

  /// Add the address of `target` to the `size` bytes at `offset` of `file`.
  mutating func addPointer(in file: String, to target: String, offset: Int, size: Int) {
    append(
      2,
      name(file) + name(target) + LittleEndian.bytes(UInt32(clamping: offset))
        + [UInt8(clamping: size)])
  }

  /// Make the bytes of `range` in `file` sum to 0 by the byte at `offset`.
  mutating func addChecksum(in file: String, offset: Int, over range: Range<Int>) {
    append(
      3,
      name(file) + LittleEndian.bytes(UInt32(clamping: offset))
        + LittleEndian.bytes(UInt32(clamping: range.lowerBound))
        + LittleEndian.bytes(UInt32(clamping: range.count)))
  }

  /// Write the address of `source` plus `sourceOffset` to `size` bytes of `file`, for
  /// the machine to read.
  mutating func writePointer(
    in file: String, offset: Int, size: Int, to source: String, sourceOffset: Int
  ) {
    append(
      4,
      name(file) + name(source) + LittleEndian.bytes(UInt32(clamping: offset))
        + LittleEndian.bytes(UInt32(clamping: sourceOffset)) + [UInt8(clamping: size)])
  }

  private mutating func append(_ command: UInt32, _ arguments: [UInt8]) {
    let entry = LittleEndian.bytes(command) + arguments
    bytes += entry + Array(repeating: 0, count: Self.entrySize - entry.count)
  }

  private func name(_ file: String) -> [UInt8] {
    let letters = Array(file.utf8.prefix(Self.nameSize - 1))
    return letters + Array(repeating: 0, count: Self.nameSize - letters.count)
  }
}
