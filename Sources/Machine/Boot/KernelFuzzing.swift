import CarrelBase
import Devices
import LinuxSystem

/// Loads kernels that somebody made with bad intentions. Shared by the fuzz target and the
/// tests.
package enum KernelFuzzing {
  package enum Outcome: Hashable, Sendable {
    case refused, loaded
    /// Something lies where it must not.
    case wrong
  }

  /// The first byte says how much memory there is, and whether firmware starts the kernel; the
  /// second how large the initial RAM disk is; the third how long the command line. The rest is
  /// the kernel's file.
  package static func run(_ program: [UInt8]) -> Outcome {
    guard program.count > 3, let kernel = try? Self.file(Array(program[3...])) else {
      return .refused
    }
    let disk = [UInt8](repeating: 0xD5, count: Int(program[1]) * 1031)
    let commandLine = String(repeating: "c", count: Int(program[2]) * 3)
    guard let diskFile = try? Self.file(disk),
      let files = try? KernelFiles(
        kernel: path(kernel), ramDisk: disk.isEmpty ? nil : path(diskFile),
        commandLine: commandLine)
    else { return .refused }
    let layout = MemoryLayoutMap(size: 1 << UInt64(20 + program[0] & 3))
    guard program[0] & 4 == 0, let start = files.image.start else {
      return install(files, layout)
    }
    guard let memory = try? Memory(layout),
      let place = try? KernelLoader(files, start: start).place(
        into: memory, tables: tables, smbios: smbios(layout), generation: generation)
    else { return .refused }
    let isWhole =
      memory.hasNothingButRAM
      && memory.holds(Array("RSD PTR ".utf8), at: KernelLoader.Place.rsdp)
      && memory.holds(generation, at: KernelLoader.Place.generation)
      && memory.holds(Array("_SM".utf8), at: KernelLoader.Place.smbiosAnchor)
      && memory.holds(Array(commandLine.utf8) + [0], at: KernelLoader.Place.commandLine)
      && place.count == disk.count && memory.holds(disk, at: place.lowerBound)
    return isWhole ? .loaded : .wrong
  }

  /// What the machine's ROM copies to where the firmware leaves room.
  private static func install(_ files: KernelFiles, _ layout: MemoryLayoutMap) -> Outcome {
    var contents = FirmwareContents()
    guard let kernel = try? FirmwareKernel(files),
      (try? kernel.install(into: &contents, layout)) != nil
    else { return .refused }
    typealias Key = FirmwareContents.Key
    let keys: [(address: UInt16, size: UInt16, data: UInt16)] = [
      (Key.setupAddress, Key.setupSize, Key.setupData),
      (Key.commandLineAddress, Key.commandLineSize, Key.commandLineData),
      (Key.kernelAddress, Key.kernelSize, Key.kernelData),
      (Key.ramDiskAddress, Key.ramDiskSize, Key.ramDiskData),
    ]
    func number(_ key: UInt16) -> Int {
      Int(LittleEndian.number(contents.items[key] ?? [], at: 0, UInt32.self))
    }
    var end = 0
    for key in keys where number(key.size) > 0 {
      let address = number(key.address)
      guard address >= end, contents.items[key.data]?.count == number(key.size),
        layout.offset(of: UInt64(address), count: number(key.size)) != nil
      else { return .wrong }
      end = address + number(key.size)
    }
    return .loaded
  }

  private static let generation = [UInt8](repeating: 0x6E, count: GenerationIdentifier.pageSize)
  private static let tables = ACPITables(
    .init(
      processors: 2, pciMemory: UInt32(PhysicalMap.lowLimit)...UInt32(PhysicalMap.pciEnd - 1),
      timerOnPin2: true))

  private static func smbios(_ layout: MemoryLayoutMap) -> SMBIOSTables {
    SMBIOSTables(
      .init(uuid: [], processors: 2, memory: layout.total, ranges: [0..<layout.low]))
  }

  private static func file(_ bytes: [UInt8]) throws -> SharedMemory {
    let file = try SharedMemory(name: "kernel", size: bytes.count)
    try file.descriptor.write(bytes[...], offset: 0)
    return file
  }

  private static func path(_ file: SharedMemory) -> String {
    "/proc/self/fd/\(file.descriptor.raw)"
  }

  /// RAM with what is between its parts, which nobody may write.
  private final class Memory: BootMemory {
    let layout: MemoryLayoutMap
    private let mapping: MemoryMapping

    init(_ layout: MemoryLayoutMap) throws(SystemError) {
      self.layout = layout
      mapping = try MemoryMapping(anonymous: Int(layout.low))
    }

    func bytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer? {
      layout.offset(of: address, count: count).map {
        // SAFETY: the layout was made for a mapping of this size, and checks the range.
        UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[$0..<$0 + count])
      }
    }

    func holds(_ expected: [UInt8], at address: UInt64) -> Bool {
      bytes(at: address, count: expected.count)?.elementsEqual(expected) ?? false
    }

    var hasNothingButRAM: Bool {
      let hole = Int(PhysicalMap.legacyVideo)..<Int(PhysicalMap.shadowStart)
      return mapping.withBytes { $0[hole].allSatisfy { $0 == 0 } }
    }
  }
}
