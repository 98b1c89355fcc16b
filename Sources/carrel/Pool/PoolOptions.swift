import ArgumentParser
import ControlAPI
import Foundation

/// The settings that `pool create` and `pool set` share.
struct PoolOptions: ParsableArguments {
  @Option(help: "The most desktops at once.")
  var size: Int?

  @Option(help: "Clean desktops kept running and ready.")
  var spares: Int?

  @Option(help: "Memory of a desktop: 512M, 2G.")
  var memory: MemorySize?

  @Option(help: "Processors of a desktop.")
  var cpus: Int?

  @Option(help: "An empty disk of this size beside an ISO, to install to: 20G.")
  var diskSize: MemorySize?

  @Option(
    help: "Firmware of a desktop that is no kernel: bios or uefi.",
    completion: .list(["bios", "uefi"]))
  var firmware: String?

  @Option(
    help: ArgumentHelp(
      "Graphics card: std (a VGA), or virtio, with one to four outputs.",
      valueName: "std|virtio[,outputs=n]"))
  var video: String?

  @Option(
    help: ArgumentHelp(
      """
      Network card: none; on the host's network (user; the host itself is out of reach but \
      with host=on); or on the TAP interface prefix1 for the desktop of number 1, and so on.
      """, valueName: "none|user[,host=on]|tap:prefix"))
  var network: String?

  @Option(
    help: ArgumentHelp(
      "Pairs of queues of the network card: 1 to 8; more than processors are of no use.",
      valueName: "number"))
  var networkQueues: Int?

  @Option(
    help: "Sound card: ac97, virtio or none.", completion: .list(["ac97", "virtio", "none"]))
  var audio: String?

  @Option(
    help: "A USB controller with a tablet and a keyboard: on or off.",
    completion: .list(["on", "off"]))
  var usb: Switch?

  @Option(help: "How disks are attached: ide or virtio.", completion: .list(["ide", "virtio"]))
  var diskBus: String?

  @Option(
    help: ArgumentHelp(
      "Operations a second of a desktop's disk, also of desktops that run.",
      valueName: "number|none"))
  var diskIops: OperationLimit?

  @Option(
    help: ArgumentHelp(
      "Operations at once after a rest, no fewer than --disk-iops.", valueName: "number|none"))
  var diskIopsBurst: OperationLimit?

  @Option(
    help: ArgumentHelp(
      "Bytes a second of a desktop's disk, also of desktops that run: 50M, 1G/s.",
      valueName: "size[/s]|none"))
  var diskBandwidth: BandwidthLimit?

  @Option(
    help: ArgumentHelp(
      "Bytes at once after a rest, no fewer than --disk-bandwidth.", valueName: "size|none"))
  var diskBandwidthBurst: BandwidthLimit?

  @Option(
    help: ArgumentHelp("Command line of a kernel image.", valueName: "text"))
  var append: String?

  @Option(
    help: "When the viewer left: keep, suspend or end.",
    completion: .list(["keep", "suspend", "end"]))
  var onDisconnect: String?

  @Option(help: "How long after the viewer left.")
  var disconnectSeconds: Int?

  @Option(
    help: "When the desktop crashed: restart or recycle.",
    completion: .list(["restart", "recycle"])
  )
  var afterCrash: String?

  @Option(
    help: "A second login of the user: steal or refuse.", completion: .list(["steal", "refuse"]))
  var takeover: String?

  @Option(help: "Keyboard: en-us, de or fr.", completion: .list(["en-us", "de", "fr"]))
  var keyboardLayout: String?

  @Option(help: "Failed starts in a row before a desktop is given up.")
  var startAttempts: Int?

  @Option(help: "Seconds a guest may take to shut down before it is killed.")
  var stopGrace: Int?

  /// Whether any of it was given, of what a pool has.
  var changesAnything: Bool {
    size != nil || spares != nil || memory != nil || cpus != nil || diskSize != nil
      || append != nil || hardware != HardwareDocument() || policies != PolicyDocument()
  }

  var hardware: HardwareDocument {
    var hardware = HardwareDocument()
    hardware.firmware = firmware
    hardware.video = video
    hardware.network = network
    hardware.networkQueues = networkQueues
    hardware.audio = audio
    hardware.usb = usb.map { $0 == .on }
    hardware.diskBus = diskBus
    return hardware
  }

  var policies: PolicyDocument {
    var policies = PolicyDocument()
    policies.onDisconnect = onDisconnect
    policies.disconnectSeconds = disconnectSeconds
    policies.afterCrash = afterCrash
    policies.takeover = takeover
    policies.keyboardLayout = keyboardLayout
    policies.startAttempts = startAttempts
    policies.stopGraceSeconds = stopGrace
    policies.diskIops = diskIops?.value
    policies.diskIopsBurst = diskIopsBurst?.value
    policies.diskBandwidth = diskBandwidth?.bytes
    policies.diskBandwidthBurst = diskBandwidthBurst?.bytes
    return policies
  }

  /// A path, or the name of an image of the library, which goes first.
  func image(_ text: String) -> ImageDocument {
    ImageDocument(
      path: absolute(text), arguments: append, name: text.contains("/") ? nil : text)
  }
}

/// A path as carreld, which lives elsewhere, understands it.
func absolute(_ path: String) -> String {
  guard !path.hasPrefix("/") else { return path }
  return FileManager.default.currentDirectoryPath + "/" + path
}

/// `on`, `off`.
enum Switch: String, ExpressibleByArgument {
  case on, off
}

/// `512M`, `2G`; a bare number is MiB.
struct MemorySize: ExpressibleByArgument {
  let mebibytes: Int

  init?(argument: String) {
    let factors: [Character: Int] = ["M": 1, "m": 1, "G": 1024, "g": 1024]
    guard let last = argument.last else { return nil }
    let factor = factors[last]
    let digits = factor == nil ? argument : String(argument.dropLast())
    guard let number = Int(digits), number > 0 else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: factor ?? 1)
    guard !overflow else { return nil }
    mebibytes = product
  }
}

extension PoolDocument {
  fileprivate var hasDisks: Bool { image.kind == "disk" || diskMiB != nil }
}

func render(_ pool: PoolDocument) -> String {
  let counts = pool.desktops
  return renderFields([
    ("name", pool.name), ("kind", pool.kind),
    ("image", "\(pool.image.path) (\(pool.image.kind.orDash))"),
    ("arguments", pool.image.arguments), ("memory", "\(pool.memoryMiB) MiB"),
    ("cpus", "\(pool.cpus)"),
    ("disk", pool.diskMiB.map { "\($0) MiB, empty at first" }),
    ("disk bus", pool.hasDisks ? pool.hardware.diskBus : nil),
    ("disk limits", pool.hasDisks ? pool.policies.diskLimits : nil),
    ("firmware", pool.image.kind == "kernel" ? nil : pool.hardware.firmware),
    ("video", pool.hardware.video), ("network", pool.hardware.network),
    (
      "network queues",
      pool.hardware.network == "none" ? nil : pool.hardware.networkQueues.map { "\($0)" }
    ),
    ("audio", pool.hardware.audio), ("usb", pool.hardware.usb.map { $0 ? "on" : "off" }),
    ("size", "\(pool.size)"), ("spares", "\(pool.spares)"),
    (
      "desktops",
      "\(counts.total): \(counts.clean) clean, \(counts.assigned) assigned "
        + "(\(counts.connected) connected), \(counts.preparing) preparing, \(counts.failed) failed"
    ),
    (
      "on disconnect",
      "\(pool.policies.onDisconnect.orDash) after \(pool.policies.disconnectSeconds ?? 0) s"
    ),
    ("after crash", pool.policies.afterCrash), ("takeover", pool.policies.takeover),
    ("keyboard", pool.policies.keyboardLayout),
    ("state", pool.draining ? "being deleted" : nil), ("problem", pool.problem),
    ("waiting", pool.waiting),
    ("created", pool.created.description),
  ])
}
