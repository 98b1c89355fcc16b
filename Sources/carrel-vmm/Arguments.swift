import ArgumentParser
import CarrelBase
import Display
import LinuxSystem
import Machine

/// A size such as `512M`, in bytes.
struct ByteSize: ExpressibleByArgument, Equatable {
  let bytes: UInt64

  init(_ bytes: UInt64) { self.bytes = bytes }

  init?(argument: String) {
    let units: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
    let unit = argument.last.flatMap { units[Character($0.uppercased())] }
    guard let number = UInt64(unit == nil ? argument[...] : argument.dropLast()) else {
      return nil
    }
    let (bytes, overflows) = number.multipliedReportingOverflow(by: 1 << (unit ?? 20))
    guard !overflows, bytes > 0 else { return nil }
    self.bytes = bytes
  }

  var defaultValueDescription: String { "\(bytes >> 20)M" }
}

/// `FILE[,format=raw|qcow2][,over=raw|qcow2:BASE][,bases=DIR][,bus=ide|virtio][,serial=TEXT]`
/// `[,queues=N][,readonly=on]`, and limits.
/// An image is raw unless something else is said: its contents, which guests write, do not
/// count. A comma in a path is doubled.
struct DiskArgument {
  let disk: MachineConfiguration.Disk

  init(parsing argument: String) throws {
    let parts = OptionText.parts(of: argument)
    guard !parts[0].isEmpty else {
      throw ValidationError("it begins with the path of an image or block device.")
    }
    var disk = MachineConfiguration.Disk(path: parts[0])
    var limits = DiskLimitsArgument()
    for option in parts.dropFirst() {
      let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let value = pair.count == 2 ? String(pair[1]) : ""
      switch pair.first {
      case "format":
        try Self.require(value, of: "format", ["raw", "qcow2"])
        disk.format = MachineConfiguration.Disk.Format(rawValue: value) ?? .raw
      case "over":
        let base = value.split(separator: ":", maxSplits: 1)
        guard base.count == 2,
          let format = MachineConfiguration.Disk.Format(rawValue: String(base[0]))
        else {
          throw ValidationError("over=\(value) is no image; give over=raw:FILE or over=qcow2:FILE.")
        }
        disk.base = MachineConfiguration.Disk.Base(path: String(base[1]), format: format)
      case "bases":
        guard value.hasPrefix("/") else {
          throw ValidationError("bases=\(value) is no directory; give its whole path.")
        }
        disk.baseDirectories.append(value)
      case "bus":
        try Self.require(value, of: "bus", ["ide", "virtio"])
        disk.bus = MachineConfiguration.Disk.Bus(rawValue: value) ?? .ide
      case "serial": disk.serial = value
      case "queues":
        guard let queues = Int(value) else {
          throw ValidationError("queues=\(value) is no number.")
        }
        disk.queues = queues
      case "readonly":
        try Self.require(value, of: "readonly", ["on", "off"])
        disk.isReadOnly = value == "on"
      case let key:
        guard try limits.take(key ?? "", value) else { throw Self.unknown(option) }
      }
    }
    guard disk.format == .qcow2 || disk.baseDirectories.isEmpty else {
      throw ValidationError("bases=DIR is for format=qcow2.")
    }
    guard disk.base == nil || (disk.format == .qcow2 && !disk.isReadOnly) else {
      throw ValidationError("over=FILE makes an image to write to: give format=qcow2 too.")
    }
    guard disk.bus == .virtio || disk.queues == 1 else {
      throw ValidationError("queues=N is for bus=virtio.")
    }
    disk.limits = limits.limits
    self.disk = disk
  }

  private static func unknown(_ option: some StringProtocol) -> ValidationError {
    ValidationError(
      "there is no disk option '\(option)'; there are format=raw|qcow2,"
        + " over=raw|qcow2:FILE, bases=DIR, bus=ide|virtio, serial=TEXT, queues=N,"
        + " readonly=on|off, and limits: \(DiskLimitsArgument.form).")
  }

  private static func require(_ value: String, of option: String, _ values: [String]) throws {
    guard !values.contains(value) else { return }
    throw ValidationError(
      "\(option)=\(value) is not supported; \(option) is "
        + values.joined(separator: " or ") + ".")
  }
}

/// `name=N,string=TEXT` or `name=N,file=PATH`; a comma in text or path is doubled.
struct FirmwareFileArgument {
  enum Source {
    case text(String)
    case file(String)
  }

  let name: String
  let source: Source

  init(parsing argument: String) throws {
    let parts = OptionText.parts(of: argument)
    guard parts[0].hasPrefix("name="), parts[0].count > 5 else {
      throw ValidationError("it begins with name=N, the name that the guest looks for.")
    }
    name = String(parts[0].dropFirst(5))
    let rest = parts.count == 2 ? parts[1] : ""
    if rest.hasPrefix("string=") {
      source = .text(String(rest.dropFirst(7)))
    } else if rest.hasPrefix("file="), rest.count > 5 {
      source = .file(String(rest.dropFirst(5)))
    } else {
      throw ValidationError(
        "after the name comes string=TEXT or file=PATH, with commas doubled, and nothing else.")
    }
  }

  func load() throws -> MachineConfiguration.FirmwareFile {
    switch source {
    case .text(let text): .init(name: name, bytes: Array(text.utf8))
    case .file(let path):
      .init(name: name, bytes: try Files.read(path, limit: 16 << 20), path: path)
    }
  }
}

/// `c`, `d`, `c,d` or `d,c`.
struct BootOrderArgument {
  let devices: [MachineConfiguration.BootDevice]

  init(parsing argument: String) throws {
    var devices: [MachineConfiguration.BootDevice] = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard part.count == 1, let letter = part.first,
        let device = MachineConfiguration.BootDevice(rawValue: letter)
      else {
        throw ValidationError(
          "there is no boot device '\(part)'; there are c, the disks, and d, the CD-ROM.")
      }
      guard !devices.contains(device) else {
        throw ValidationError("boot device \(letter) is there twice; name each once.")
      }
      devices.append(device)
    }
    self.devices = devices
  }
}

/// `stdio`, `none`, `unix:PATH`, or the path of a file or terminal.
struct SerialArgument {
  let serial: MachineConfiguration.Serial

  init(parsing argument: String) throws {
    switch argument {
    case "none": serial = .none
    case "stdio": serial = .standardStreams
    case "", "unix:":
      throw ValidationError("the path is empty; give stdio, none, unix:PATH or a path.")
    case _ where argument.hasPrefix("unix:"): serial = .socket(String(argument.dropFirst(5)))
    case _ where Self.foreign.contains { argument == $0 || argument.hasPrefix("\($0):") }:
      throw ValidationError(
        "there is no such kind of serial port; give stdio, none, unix:PATH or a path"
          + " (./\(argument) for a file of that name).")
    default: serial = .file(argument)
    }
  }

  /// What other VMMs offer and this one does not.
  private static let foreign = ["tcp", "udp", "telnet", "pty", "mon", "file", "chardev"]
}

enum InternalErrorAction: String, ExpressibleByArgument, CaseIterable {
  case pause
  case end
}

/// `std`, `virtio[,outputs=N]` or `none`.
struct VideoArgument {
  let display: MachineConfiguration.Display

  init(parsing argument: String) throws {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
    switch (parts.first, parts.count) {
    case ("std", 1): display = .standard
    case ("none", 1): display = .none
    case ("virtio", 1): display = .virtio(outputs: 1)
    case ("virtio", 2):
      guard parts[1].hasPrefix("outputs="), let outputs = Int(parts[1].dropFirst(8)) else {
        throw ValidationError("there is no option '\(parts[1])'; there is outputs=N.")
      }
      display = .virtio(outputs: outputs)
    default:
      throw ValidationError(
        "there is no display adapter '\(argument)'; give std, virtio[,outputs=N] or none.")
    }
  }
}

/// `HOST:PORT`; an IPv6 host is in brackets.
struct ListenAddress: ExpressibleByArgument, Equatable {
  let text: String

  init?(argument: String) {
    guard let colon = argument.lastIndex(of: ":"), colon > argument.startIndex,
      UInt16(argument[argument.index(after: colon)...]) != nil
    else { return nil }
    text = argument
  }
}

extension MachineConfiguration.ProcessorPolicy: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }

  public var defaultValueDescription: String { description }
}

extension MachineUUID: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

extension KeyboardLayout: ExpressibleByArgument {}
