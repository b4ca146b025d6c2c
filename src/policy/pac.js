function FindProxyForURL(url, host) {
    host = host.toLowerCase().replace(/^\[/, "").replace(/\]$/, "").replace(/\.$/, "");
    var address = addressOf(host);
    if (address !== "") {
        return isDirect(address) ? "DIRECT" : proxies;
    }
    if (plainNames && host.search(/[.:]/) < 0) {
        return "DIRECT";
    }
    for (var name = host; name !== ""; ) {
        if (hosts.hasOwnProperty(name)) {
            return "DIRECT";
        }
        var dot = name.indexOf(".");
        name = dot < 0 ? "" : name.substring(dot + 1);
    }
    return proxies;
}

// Networks are asked for addresses alone: no name is resolved for them, which would make every page wait.
function isDirect(address) {
    for (var i = 0; i < networks.length; i++) {
        var first = networks[i][0], last = networks[i][1];
        if (first.length === address.length && first <= address && address <= last) {
            return true;
        }
    }
    return false;
}

// An address in hexadecimal digits, 8 or 32 of them; nothing if it is a name.
function addressOf(host) {
    if (host.indexOf(":") < 0) {
        return hexOfV4(host);
    }
    var text = host.replace(/%.*$/, "");
    var tail = text.substring(text.lastIndexOf(":") + 1);
    if (tail.indexOf(".") >= 0) {
        var v4 = hexOfV4(tail);
        if (v4 === "") {
            return "";
        }
        text = text.substring(0, text.length - tail.length) + v4.substring(0, 4) + ":" + v4.substring(4);
    }
    var halves = text.split("::");
    var left = halves[0] === "" ? [] : halves[0].split(":");
    var right = halves.length < 2 || halves[1] === "" ? [] : halves[1].split(":");
    var missing = 8 - left.length - right.length;
    if (halves.length > 2 || missing < 0 || (halves.length === 1 && missing !== 0)) {
        return "";
    }
    while (missing-- > 0) {
        left.push("0");
    }
    var groups = left.concat(right), hex = "";
    for (var i = 0; i < 8; i++) {
        if (!/^[0-9a-f]{1,4}$/.test(groups[i])) {
            return "";
        }
        hex += ("000" + groups[i]).slice(-4);
    }
    // An IPv4 address in IPv6 dress is the IPv4 address.
    return hex.substring(0, 24) === "00000000000000000000ffff" ? hex.substring(24) : hex;
}

function hexOfV4(host) {
    var parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host), hex = "";
    if (parts === null) {
        return "";
    }
    for (var i = 1; i <= 4; i++) {
        if (parts[i] > 255) {
            return "";
        }
        hex += ("0" + Number(parts[i]).toString(16)).slice(-2);
    }
    return hex;
}
