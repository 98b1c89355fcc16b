import DeviceModel
import LinuxSystem
import Synchronization

/// A driver's RAM, from address 0: a memfd, so that a device in another process can have
/// it too.
final class BenchMemory: GuestMemory, SharedBytes {
  let shared: SharedMemory
  private let mapping: MemoryMapping

  init(size: Int) throws {
    shared = try SharedMemory(name: "carrel-bench", size: size)
    mapping = try shared.map()
  }

  var bytes: UnsafeMutableRawBufferPointer { mapping.bytes }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(GuestMemoryError)
  {
    let place = try place(address, buffer.count)
    buffer.copyWhole(from: UnsafeRawBufferPointer(rebasing: bytes[place]))
  }

  func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError) {
    let place = try place(address, buffer.count)
    // SAFETY: the range was checked to lie in the mapping.
    UnsafeMutableRawBufferPointer(rebasing: bytes[place]).copyWhole(from: buffer)
  }

  func space(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestSpace {
    var pieces: [UnsafeMutableRawBufferPointer] = []
    for range in ranges {
      // SAFETY: the range was checked to lie in the mapping, which the result keeps.
      pieces.append(
        UnsafeMutableRawBufferPointer(
          rebasing: bytes[try place(range.address, range.count)]))
    }
    return GuestSpace(pieces: pieces, ranges: ranges, owner: mapping)
  }

  func wrote(_ space: GuestSpace) {}

  func inPlace(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestBytes {
    var pieces: [UnsafeRawBufferPointer] = []
    for range in ranges {
      // SAFETY: the range was checked to lie in the mapping, which the result keeps.
      pieces.append(
        UnsafeRawBufferPointer(rebasing: bytes[try place(range.address, range.count)]))
    }
    return GuestBytes(pieces: pieces, owner: mapping)
  }

  func contains(_ address: UInt64, count: Int) -> Bool {
    count >= 0 && count <= bytes.count && address <= UInt64(bytes.count - count)
  }

  private func place(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Range<Int> {
    guard contains(address, count: count) else {
      throw GuestMemoryError(address: address, count: count)
    }
    return Int(address)..<Int(address) + count
  }

  // MARK: The driver's own accesses, at places that it chose

  func put<Number: FixedWidthInteger & BitwiseCopyable>(_ value: Number, at address: Int) {
    bytes.storeBytes(of: value.littleEndian, toByteOffset: address, as: Number.self)
  }

  func get<Number: FixedWidthInteger & BitwiseCopyable>(_ address: Int, _: Number.Type) -> Number {
    Number(littleEndian: bytes.load(fromByteOffset: address, as: Number.self))
  }

  func put(_ data: [UInt8], at address: Int) {
    // SAFETY: slicing traps beyond the mapping.
    UnsafeMutableRawBufferPointer(rebasing: bytes[address..<address + data.count])
      .copyBytes(from: data)
  }

  static func fence() { atomicMemoryFence(ordering: .sequentiallyConsistent) }
}
