import ArgumentParser
import Disk
import QMP

struct DiskCreate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a qcow2 image, empty or over another image.")

  @OptionGroup var options: DiskToolOptions

  @Option(help: ArgumentHelp("Of the disk, with unit K, M (assumed), G or T.", valueName: "size"))
  var size: ByteSize?

  @Option(
    help: ArgumentHelp(
      "Read as this image until something is written; the size is that image's.",
      valueName: "raw|qcow2:file"), transform: BaseArgument.init(parsing:))
  var over: BaseArgument?

  @Option(
    help: ArgumentHelp(
      "A power of two from 512 bytes to 2M, with unit K or M; 64K if left out.",
      valueName: "bytes"))
  var clusterSize: ClusterSize?

  @Flag(help: "Write reference counts late: faster, and counted anew after a crash.")
  var lazyRefcounts = false

  func validate() throws {
    guard (size == nil) != (over == nil) else {
      throw ValidationError("give either --size or --over.")
    }
  }

  func run() throws {
    try options.run("making") { _ in
      let new = Qcow2Options(
        byteCount: size?.bytes ?? 0, clusterSize: clusterSize?.bytes ?? ClusterSize.usual,
        hasLazyRefcounts: lazyRefcounts)
      if let over {
        try Qcow2Image.createOverlay(
          options.file, over: over.backing, options.policy, options: new)
      } else {
        try Qcow2Image.create(options.file, new)
      }
    }
    try options.report(
      ["file": .string(options.file)], "\(options.file) is made.")
  }
}

/// `512`, `64K`, `2M`: bytes, unless there is a unit.
struct ClusterSize: ExpressibleByArgument {
  static let usual = 64 << 10

  let bytes: Int

  init?(argument: String) {
    let shifts: [Character: Int] = ["K": 10, "M": 20]
    let shift = argument.last.flatMap { shifts[Character($0.uppercased())] }
    guard let number = Int(shift == nil ? argument[...] : argument.dropLast()), number > 0 else {
      return nil
    }
    let (bytes, overflows) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    guard !overflows else { return nil }
    self.bytes = bytes
  }
}
