/// A register block or memory window that a device exposes.
///
/// The target never learns where it was mapped: offsets count from the start of
/// its own range. Calls arrive on a vCPU thread with the machine's device lock
/// held, and must not block.
public protocol BusTarget: AnyObject {
  /// The widest access, in bytes (1, 2, 4 or 8), that the hardware decodes as
  /// one. The bus splits wider accesses into ascending little-endian parts.
  var maximumAccessWidth: Int { get }

  /// Reads `width` bytes (1, 2, 4 or 8) at `offset`, little-endian.
  func read(offset: UInt64, width: Int) -> UInt64

  /// Writes the low `width` bytes (1, 2, 4 or 8) of `value` at `offset`.
  func write(offset: UInt64, width: Int, value: UInt64)
}

extension BusTarget {
  public var maximumAccessWidth: Int { 1 }
}

/// Why a range could not be mapped on a bus.
public struct BusError: Error, CustomStringConvertible {
  public enum Kind: Sendable { case overlap, emptyRange, wraps, notMapped }

  public let kind: Kind
  public let context: String

  public var description: String { context }
}

/// An address space of byte-addressed targets: the I/O port space, or the part
/// of guest-physical space that is not RAM.
///
/// Reads that nothing decodes return all ones and writes there are dropped, as on
/// an ISA or PCI bus that ends in a master abort. Owned by the device lock.
public final class Bus {
  struct Mapping {
    let base: UInt64
    let last: UInt64
    let name: String
    let target: any BusTarget
  }

  /// What the bus is called in errors ("port I/O", "MMIO").
  public let name: String
  private var mappings: [Mapping] = []

  public init(name: String) {
    self.name = name
  }

  /// Maps `target` at `base ..< base + size`.
  ///
  /// - Throws: `BusError` when the range is empty, wraps around, or overlaps one
  ///   that is already mapped; nothing is mapped then.
  public func map(_ target: any BusTarget, name: String, at base: UInt64, size: UInt64)
    throws(BusError)
  {
    guard size > 0 else {
      throw BusError(kind: .emptyRange, context: "\(self.name): \(name) has no size")
    }
    let (last, wraps) = base.addingReportingOverflow(size - 1)
    guard !wraps else {
      throw BusError(kind: .wraps, context: "\(self.name): \(name) wraps around the bus")
    }
    let index = insertionIndex(for: base)
    for neighbour in [index - 1, index] where mappings.indices.contains(neighbour) {
      let other = mappings[neighbour]
      guard last < other.base || base > other.last else {
        throw BusError(
          kind: .overlap, context: "\(self.name): \(name) overlaps \(other.name)")
      }
    }
    mappings.insert(Mapping(base: base, last: last, name: name, target: target), at: index)
  }

  /// Takes everything off the bus, which lets go of targets that know the bus's owner.
  public func unmapAll() {
    mappings = []
  }

  /// Removes the mapping that starts at `base`.
  ///
  /// - Throws: `BusError` of kind `notMapped` when none starts there.
  public func unmap(at base: UInt64) throws(BusError) {
    guard let index = mappings.firstIndex(where: { $0.base == base }) else {
      throw BusError(kind: .notMapped, context: "\(name): nothing is mapped at \(base)")
    }
    mappings.remove(at: index)
  }

  /// Reads `width` bytes (1, 2, 4 or 8) at `address`.
  public func read(address: UInt64, width: Int) -> UInt64 {
    guard let mapping = mapping(at: address) else { return allOnes(width) }
    let part = min(mapping.target.maximumAccessWidth, width)
    if part == width && mapping.last - address >= UInt64(width - 1) {
      return mapping.target.read(offset: address - mapping.base, width: width) & allOnes(width)
    }
    // Crossing into another range is split to bytes, as the bus cycles would be.
    let step = mapping.last - address >= UInt64(width - 1) ? part : 1
    var value: UInt64 = 0
    for index in stride(from: 0, to: width, by: step) {
      value |= read(address: address &+ UInt64(index), width: step) << UInt64(index * 8)
    }
    return value
  }

  /// Writes the low `width` bytes (1, 2, 4 or 8) of `value` at `address`.
  public func write(address: UInt64, width: Int, value: UInt64) {
    guard let mapping = mapping(at: address) else {
      if width > 1 {
        for index in 0..<width where self.mapping(at: address &+ UInt64(index)) != nil {
          write(address: address &+ UInt64(index), width: 1, value: value >> UInt64(index * 8))
        }
      }
      return
    }
    let part = min(mapping.target.maximumAccessWidth, width)
    if part == width && mapping.last - address >= UInt64(width - 1) {
      mapping.target.write(
        offset: address - mapping.base, width: width, value: value & allOnes(width))
      return
    }
    let step = mapping.last - address >= UInt64(width - 1) ? part : 1
    for index in stride(from: 0, to: width, by: step) {
      write(address: address &+ UInt64(index), width: step, value: value >> UInt64(index * 8))
    }
  }

  private func mapping(at address: UInt64) -> Mapping? {
    let index = insertionIndex(for: address)
    if index < mappings.count && mappings[index].base == address { return mappings[index] }
    guard index > 0 else { return nil }
    let candidate = mappings[index - 1]
    return address <= candidate.last ? candidate : nil
  }

  /// The index of the first mapping whose base is not below `base`.
  private func insertionIndex(for base: UInt64) -> Int {
    var low = 0
    var high = mappings.count
    while low < high {
      let middle = (low + high) / 2
      if mappings[middle].base < base { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func allOnes(_ width: Int) -> UInt64 {
    width >= 8 ? .max : (1 << UInt64(width * 8)) - 1
  }
}
