/// What firmware and guests find in the configuration device: keyed items and named
/// files. Fixed once the machine starts, except for files that guests write to and
/// those that are read again.
package struct FirmwareContents: Sendable {
  /// Item keys (docs/specs/fw_cfg, "Selector (Control) Register").
  package enum Key {
    package static let signature: UInt16 = 0x00
    package static let interfaceVersion: UInt16 = 0x01
    package static let uuid: UInt16 = 0x02
    package static let memorySize: UInt16 = 0x03
    package static let noGraphic: UInt16 = 0x04
    package static let cpuCount: UInt16 = 0x05
    package static let kernelAddress: UInt16 = 0x07
    package static let kernelSize: UInt16 = 0x08
    package static let ramDiskAddress: UInt16 = 0x0A
    package static let ramDiskSize: UInt16 = 0x0B
    package static let bootMenu: UInt16 = 0x0E
    package static let maximumCPUCount: UInt16 = 0x0F
    package static let kernelEntry: UInt16 = 0x10
    package static let kernelData: UInt16 = 0x11
    package static let ramDiskData: UInt16 = 0x12
    package static let commandLineAddress: UInt16 = 0x13
    package static let commandLineSize: UInt16 = 0x14
    package static let commandLineData: UInt16 = 0x15
    package static let setupAddress: UInt16 = 0x16
    package static let setupSize: UInt16 = 0x17
    package static let setupData: UInt16 = 0x18
    package static let fileDirectory: UInt16 = 0x19
    package static let firstFile: UInt16 = 0x20
    package static let irq0Override: UInt16 = 0x8002
  }

  struct File: Sendable {
    var name: String
    var bytes: [UInt8]
    var isWritable: Bool
    var isReread: Bool
  }

  /// The contents with a key for each file.
  struct Assembly {
    var items: [UInt16: [UInt8]]
    /// Names of files that are not fixed, by key.
    var writable: [UInt16: String] = [:]
    var reread: [UInt16: String] = [:]
    /// Of every file, by its name.
    var keys: [String: UInt16] = [:]
  }

  /// The longest file name, without its terminating zero.
  package static let maximumNameLength = 55
  package static let maximumFileCount = 512
  /// The longest that a file that is read again may become.
  package static let maximumRereadSize = 1 << 16

  package private(set) var items: [UInt16: [UInt8]] = [:]
  private(set) var files: [File] = []

  /// Contents every PC has: signature, the version with DMA, no items beyond.
  package init() {
    items[Key.signature] = Array("QEMU".utf8)
    items[Key.interfaceVersion] = LittleEndian.bytes(UInt32(3))
  }

  package mutating func setItem(_ key: UInt16, _ bytes: [UInt8]) {
    items[key] = bytes
  }

  /// Adds or replaces a file. One with `isReread` is asked for again at the device's
  /// `FirmwareFileSource`, where there is one.
  ///
  /// - Returns: `false` when the name is empty, too long or not printable ASCII, or
  ///   when there are too many files; nothing is added then.
  @discardableResult
  package mutating func addFile(
    _ name: String, _ bytes: [UInt8], isWritable: Bool = false, isReread: Bool = false
  ) -> Bool {
    guard Self.isName(name) else { return false }
    let file = File(name: name, bytes: bytes, isWritable: isWritable, isReread: isReread)
    if let index = files.firstIndex(where: { $0.name == name }) {
      files[index] = file
      return true
    }
    guard files.count < Self.maximumFileCount else { return false }
    files.append(file)
    return true
  }

  /// Whether a file can have that name: 1 to 55 printable characters of ASCII.
  package static func isName(_ name: String) -> Bool {
    (1...maximumNameLength).contains(name.utf8.count)
      && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
  }

  package func file(_ name: String) -> [UInt8]? {
    files.first { $0.name == name }?.bytes
  }

  /// Gives every file a key, in the order of names, and writes the directory.
  func assemble() -> Assembly {
    var result = Assembly(items: items)
    let sorted = files.sorted { Array($0.name.utf8).lexicographicallyPrecedes($1.name.utf8) }
    var directory = BigEndian.bytes(UInt32(sorted.count))
    for (index, file) in sorted.enumerated() {
      let key = Key.firstFile + UInt16(index)
      result.items[key] = file.bytes
      result.keys[file.name] = key
      if file.isWritable { result.writable[key] = file.name }
      if file.isReread { result.reread[key] = file.name }
      directory += BigEndian.bytes(UInt32(truncatingIfNeeded: file.bytes.count))
      directory += BigEndian.bytes(key) + [0, 0]
      directory += Array(file.name.utf8)
      directory += Array(repeating: 0, count: Self.maximumNameLength + 1 - file.name.utf8.count)
    }
    result.items[Key.fileDirectory] = directory
    return result
  }
}

extension FirmwareContents.Assembly {
  /// Takes over items, and files of names that are there.
  mutating func renew(_ changes: FirmwareContents) {
    items.merge(changes.items) { $1 }
    for file in changes.files {
      guard let key = keys[file.name] else { continue }
      replace(key, with: file.bytes)
      reread[key] = file.isReread ? file.name : nil
    }
  }

  /// Gives a file new contents, and its entry in the directory their size.
  mutating func replace(_ key: UInt16, with bytes: [UInt8]) {
    typealias Key = FirmwareContents.Key
    items[key] = bytes
    // A 32-bit count, then 64 bytes for each file that begin with its size.
    let place = 4 + (Int(key) - Int(Key.firstFile)) * 64
    guard let count = items[Key.fileDirectory]?.count, place >= 4, place + 4 <= count else {
      return
    }
    items[Key.fileDirectory]?.replaceSubrange(
      place..<place + 4, with: BigEndian.bytes(UInt32(clamping: bytes.count)))
  }
}

/// Where the device asks again for files whose contents may change while the guest
/// runs. Implemented by the machine.
package protocol FirmwareFileSource {
  /// What the file holds now; `nil` leaves the guest with what was there before, as
  /// does anything longer than `FirmwareContents.maximumRereadSize`. Called under the
  /// device lock whenever the guest selects the file or the directory: must not wait.
  func contents(ofFirmwareFile name: String) -> [UInt8]?
}

/// One range of the E820 memory map.
package struct MemoryRange: Sendable, Equatable {
  package enum Kind: UInt32, Sendable { case ram = 1, reserved = 2 }

  package var base: UInt64
  package var size: UInt64
  package var kind: Kind

  package init(base: UInt64, size: UInt64, kind: Kind) {
    self.base = base
    self.size = size
    self.kind = kind
  }
}

/// Bytes that firmware is to put at an address.
package struct FirmwarePart: Sendable {
  package var address: UInt32
  package var bytes: [UInt8]

  package init(address: UInt32, bytes: [UInt8]) {
    self.address = address
    self.bytes = bytes
  }
}

extension FirmwareContents {
  /// Memory as SeaBIOS wants to hear of it: total size and `etc/e820`.
  package mutating func describeMemory(total: UInt64, ranges: [MemoryRange]) {
    setItem(Key.memorySize, LittleEndian.bytes(total))
    addFile(
      "etc/e820",
      ranges.flatMap {
        LittleEndian.bytes($0.base) + LittleEndian.bytes($0.size)
          + LittleEndian.bytes($0.kind.rawValue)
      })
  }

  package mutating func describeProcessors(count: Int, maximum: Int) {
    setItem(Key.cpuCount, LittleEndian.bytes(UInt16(clamping: count)))
    setItem(Key.maximumCPUCount, LittleEndian.bytes(UInt16(clamping: maximum)))
    // IRQ 0 arrives at IOAPIC pin 2, as the MADT says.
    setItem(Key.irq0Override, [1])
  }

  /// A kernel for a ROM that loads it: each part, where it goes and how long it is, and
  /// where code for protected mode begins.
  package mutating func describeKernel(
    setup: FirmwarePart, kernel: FirmwarePart, commandLine: FirmwarePart, ramDisk: FirmwarePart
  ) {
    setPart(setup, Key.setupAddress, Key.setupSize, Key.setupData)
    setPart(kernel, Key.kernelAddress, Key.kernelSize, Key.kernelData)
    setPart(commandLine, Key.commandLineAddress, Key.commandLineSize, Key.commandLineData)
    setPart(ramDisk, Key.ramDiskAddress, Key.ramDiskSize, Key.ramDiskData)
    setItem(Key.kernelEntry, LittleEndian.bytes(kernel.address))
  }

  private mutating func setPart(
    _ part: FirmwarePart, _ address: UInt16, _ size: UInt16, _ data: UInt16
  ) {
    setItem(address, LittleEndian.bytes(part.address))
    setItem(size, LittleEndian.bytes(UInt32(clamping: part.bytes.count)))
    setItem(data, part.bytes)
  }

  /// Devices to boot from, best first, as Open Firmware paths
  /// (`/pci@i0cf8/ide@1,1/drive@0/disk@0`); `wait` is how long SeaBIOS offers its
  /// menu, nil for no menu.
  package mutating func describeBoot(order: [String], menuWait: UInt16?) {
    if !order.isEmpty {
      addFile("bootorder", Array(order.joined(separator: "\n").utf8) + [0])
    }
    setItem(Key.bootMenu, LittleEndian.bytes(UInt16(menuWait == nil ? 0 : 1)))
    if let menuWait { addFile("etc/boot-menu-wait", LittleEndian.bytes(menuWait)) }
  }
}
