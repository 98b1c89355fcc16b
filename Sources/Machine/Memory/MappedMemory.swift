import DeviceModel
import LinuxSystem

/// A memfd and its mapping in this process.
final class MappedMemory: SharedBytes {
  let shared: SharedMemory
  private let mapping: MemoryMapping

  init(name: String, size: Int) throws(MachineError) {
    do {
      shared = try SharedMemory(name: name, size: size)
      mapping = try shared.map()
    } catch {
      throw MachineError(
        .host, "the host gave no \(size >> 20) MiB of memory for \(name); give the guest less",
        cause: error)
    }
  }

  var bytes: UnsafeMutableRawBufferPointer { mapping.bytes }

  /// How much of it the host holds at present.
  var hostBytes: UInt64 { shared.descriptor.storedBytes }

  /// Lets go of a range, which reads as zeros then.
  func release(_ range: Range<Int>) {
    // Where a host cannot, the range stays as it is, and nobody counts on its contents.
    _ = try? shared.descriptor.clear(
      .punchHole, offset: UInt64(range.lowerBound), count: UInt64(range.count))
  }

  /// Something that tells of writes through this mapping, the guest's included.
  func makeWriteWatch() throws(SystemError) -> WriteWatch { try WriteWatch(mapping) }
}
