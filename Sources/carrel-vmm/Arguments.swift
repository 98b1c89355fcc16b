import ArgumentParser
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

/// `FILE[,format=raw][,bus=ide][,readonly=on]`.
struct DiskArgument: ExpressibleByArgument {
  let disk: MachineConfiguration.Disk

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
    guard let path = parts.first, !path.isEmpty else { return nil }
    var disk = MachineConfiguration.Disk(path: String(path))
    for option in parts.dropFirst() {
      switch option {
      case "format=raw", "bus=ide", "readonly=off": break
      case "readonly=on": disk.isReadOnly = true
      default: return nil
      }
    }
    self.disk = disk
  }
}

/// `name=N,string=TEXT` or `name=N,file=PATH`; the text or path is all that follows.
struct FirmwareFileArgument: ExpressibleByArgument {
  enum Source {
    case text(String)
    case file(String)
  }

  let name: String
  let source: Source

  init?(argument: String) {
    let parts = argument.split(separator: ",", maxSplits: 1)
    guard parts.count == 2, parts[0].hasPrefix("name=") else { return nil }
    name = String(parts[0].dropFirst(5))
    if parts[1].hasPrefix("string=") {
      source = .text(String(parts[1].dropFirst(7)))
    } else if parts[1].hasPrefix("file=") {
      source = .file(String(parts[1].dropFirst(5)))
    } else {
      return nil
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
struct BootOrderArgument: ExpressibleByArgument {
  let devices: [MachineConfiguration.BootDevice]

  init?(argument: String) {
    var devices: [MachineConfiguration.BootDevice] = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard part.count == 1, let letter = part.first,
        let device = MachineConfiguration.BootDevice(rawValue: letter), !devices.contains(device)
      else { return nil }
      devices.append(device)
    }
    self.devices = devices
  }
}

/// `stdio`, `none`, `unix:PATH`, or the path of a file or terminal.
struct SerialArgument: ExpressibleByArgument {
  let serial: MachineConfiguration.Serial

  init?(argument: String) {
    switch argument {
    case "": return nil
    case "none": serial = .none
    case "stdio": serial = .standardStreams
    case _ where argument.hasPrefix("unix:"): serial = .socket(String(argument.dropFirst(5)))
    default: serial = .file(argument)
    }
  }
}

enum VideoAdapter: String, ExpressibleByArgument, CaseIterable {
  case std
  case none
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

extension KeyboardLayout: ExpressibleByArgument {}
